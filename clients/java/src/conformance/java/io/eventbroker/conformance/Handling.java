package io.eventbroker.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import io.eventbroker.EventBrokerException;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/** The verbs of handlers, and of how they and subscriptions end. */
final class Handling {
  private final Play play;

  private record Expected(String by, List<String> events, String state, int times) {}

  private record Finish(String by, List<String> events) {}

  private record Stop(String who, String how) {}

  private record End(String who, String error) {}

  Handling(Play play) {
    this.play = play;
  }

  void verbs(Map<String, Play.Verb> verbs) {
    verbs.put("run", this::run);
    verbs.put("expect_handled", this::expectHandled);
    verbs.put("finish", this::finish);
    verbs.put("stop", this::stop);
    verbs.put("expect_end", this::expectEnd);
  }

  private void run(JsonNode arguments) {
    var wish = Case.read(arguments, Subscribing.Wish.class);
    var worker = new Worker(wish.on());
    worker.consumer = play.broker.consume(wish.group(), wish.options(play.tenant), worker::handle);
    play.workers.put(wish.as(), worker);
  }

  private void expectHandled(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, Expected.class);
    var worker = play.workers.get(say.by);
    for (var name : say.events) {
      var wanted = Play.Ordinal.of(name);
      Play.eventually(unused -> {
        if (worker.consumer.ended().isCompletedExceptionally()) {
          Play.answer(worker.consumer.ended(), Duration.ZERO);
        }
        int count = "begun".equals(say.state) ? worker.begun(wanted.id()) : worker.done(wanted.id());
        Play.check(count >= Math.max(wanted.number(), 1), wanted.id() + " was handled " + count + " times");
      });
      int count = worker.begun(wanted.id());
      Play.check(say.times == 0 || count == say.times, wanted.id() + " was handled " + count + " times");
    }
  }

  private void finish(JsonNode arguments) {
    var say = Case.read(arguments, Finish.class);
    say.events.forEach(play.workers.get(say.by)::finish);
  }

  private void stop(JsonNode arguments) {
    var say = Case.read(arguments, Stop.class);
    if (say.how.equals("drain")) {
      play.workers.get(say.who).consumer.drain();
    } else {
      play.subscriptions.get(say.who).close();
    }
  }

  private void expectEnd(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, End.class);
    var worker = play.workers.get(say.who);
    var ended = worker == null ? play.subscriptions.get(say.who).subscription.ended() : worker.consumer.ended();
    String reason = null;
    try {
      Play.answer(ended, Play.PATIENCE);
    } catch (EventBrokerException thrown) {
      reason = thrown.reason();
    }
    Play.same("ends", reason, say.error);
  }
}
