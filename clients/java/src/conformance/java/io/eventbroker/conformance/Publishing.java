package io.eventbroker.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.eventbroker.Expect;
import io.eventbroker.v1.AggregateExpectation;
import io.eventbroker.v1.Event;
import io.eventbroker.v1.FieldViolation;
import io.eventbroker.v1.PublishResult;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The verb that publishes. */
final class Publishing {
  private final Play play;
  private final Map<String, List<Place>> answers = new HashMap<>(); // by name

  /** Where an event went. */
  private record Place(long position, long version) {}

  private record Expectation(String aggregateType, String aggregateId, Long version, Boolean exists) {
    AggregateExpectation expect() {
      return version == null
          ? Expect.exists(aggregateType, aggregateId, exists)
          : Expect.atVersion(aggregateType, aggregateId, version);
    }
  }

  private record Why(String reason, List<String> fields) {}

  private record Say(
      List<ObjectNode> events, String mode, List<Expectation> expectations, List<String> outcomes, List<Long> versions,
      String as, String sameAs, Map<String, Why> refused, Refusal error) {}

  Publishing(Play play) {
    this.play = play;
  }

  void verbs(Map<String, Play.Verb> verbs) {
    verbs.put("publish", this::publish);
  }

  private void publish(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, Say.class);
    var events = new ArrayList<Event>();
    for (var each : say.events) {
      events.add(SaidEvent.event(each, play.tenant));
    }
    var expectations = Play.orNone(say.expectations).stream().map(Expectation::expect);
    var results = Refusal.or(say.error, () -> Play.answer("PER_EVENT".equals(say.mode)
        ? play.broker.publishPerEvent(events)
        : play.broker.publishMany(events, expectations.toArray(AggregateExpectation[]::new)), Case.MOST));
    if (results != null) {
      check(say, events, results);
    }
  }

  private void check(Say say, List<Event> events, List<PublishResult> results) {
    for (int number = 0; number < results.size(); number++) {
      var result = results.get(number);
      if (outcome(result).equals("REFUSED")) {
        var why = say.refused.get(result.getEventId());
        var fields = result.getError().getViolationsList().stream().map(FieldViolation::getField).toList();
        Play.check(result.getError().getReason().equals(why.reason), "refused for " + result.getError());
        Play.same("fields", fields, Play.orNone(why.fields));
      } else {
        play.published.putIfAbsent(result.getEventId(), events.get(number));
        play.position = Math.max(play.position, result.getPosition());
      }
    }
    Play.same("outcomes", results.stream().map(Publishing::outcome).toList(),
        say.outcomes == null ? Collections.nCopies(events.size(), "STORED") : say.outcomes);
    if (say.versions != null) {
      Play.same("versions", results.stream().map(PublishResult::getAggregateVersion).toList(), say.versions);
    }
    var places = results.stream().map(each -> new Place(each.getPosition(), each.getAggregateVersion())).toList();
    if (say.sameAs != null) {
      Play.same("places", places, answers.get(say.sameAs));
    }
    answers.put(say.as, places);
  }

  private static String outcome(PublishResult result) {
    return result.getOutcome().name().replace("PUBLISH_OUTCOME_", "");
  }
}
