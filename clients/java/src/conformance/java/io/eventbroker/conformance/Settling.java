package io.eventbroker.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import io.eventbroker.Nack;
import io.eventbroker.Outcome;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/** The verbs that settle what was taken. */
final class Settling {
  private final Play play;

  private record Say(
      List<String> deliveries, List<String> ackIds, String reason, String action, Double delay, double seconds,
      List<String> outcomes, Refusal error) {

    Nack nack() {
      if (action != null) {
        return switch (action) {
          case "DEAD_LETTER" -> Nack.toDeadLetters();
          case "RELEASE" -> Nack.release();
          default -> throw new AssertionError("there is no action " + action);
        };
      }
      return delay == null ? Nack.retry() : Nack.after(Play.duration(delay));
    }
  }

  private interface Call {
    CompletableFuture<List<Outcome>> of(Say say, List<String> ackIds);
  }

  Settling(Play play) {
    this.play = play;
  }

  void verbs(Map<String, Play.Verb> verbs) {
    var broker = play.broker;
    verbs.put("ack", verb((say, ackIds) -> broker.ack(ackIds)));
    verbs.put("nack", verb((say, ackIds) -> broker.nack(ackIds, say.reason == null ? "" : say.reason, say.nack())));
    verbs.put("extend", verb((say, ackIds) -> broker.extend(ackIds, Play.duration(say.seconds))));
  }

  private Play.Verb verb(Call call) {
    return arguments -> settle(arguments, call);
  }

  private void settle(JsonNode arguments, Call call) throws Exception {
    var say = Case.read(arguments, Say.class);
    var ackIds = new ArrayList<>(Play.orNone(say.ackIds));
    Play.orNone(say.deliveries).forEach(name -> ackIds.add(play.delivery(name).ackId()));
    var outcomes = Refusal.or(say.error, () -> Play.answer(call.of(say, ackIds), Case.MOST));
    if (outcomes != null) {
      Play.same("outcomes", outcomes.stream().map(Outcome::name).toList(),
          say.outcomes == null ? Collections.nCopies(ackIds.size(), "DONE") : say.outcomes);
    }
  }
}
