package io.eventbroker.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.Duration;
import io.eventbroker.v1.CreateGroupRequest;
import io.eventbroker.v1.DeadLetter;
import io.eventbroker.v1.DeadLetterFilter;
import io.eventbroker.v1.ListDeadLettersRequest;
import io.eventbroker.v1.RedriveDeadLettersRequest;
import io.eventbroker.v1.RetryPolicy;
import io.eventbroker.v1.WaitForGroupRequest;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.stream.Collectors;

/** The verbs of groups, and of what they have given up. */
final class Groups {
  private final Play play;

  private record Create(
      String group, List<String> eventTypes, double ackDeadline, double initialBackoff, double maximumBackoff,
      int maxAttempts, Refusal error) {}

  private record Settled(String group) {}

  private record DeadLetters(
      String group, List<String> events, Map<String, String> reasons, Map<String, Integer> attempts,
      Map<String, Boolean> rejected) {}

  private record Redrive(
      String group, List<String> events, boolean all, Long redriven, Long remaining, Refusal error) {}

  Groups(Play play) {
    this.play = play;
  }

  void verbs(Map<String, Play.Verb> verbs) {
    verbs.put("create_group", this::create);
    verbs.put("settled", this::settled);
    verbs.put("dead_letters", this::deadLetters);
    verbs.put("redrive", this::redrive);
  }

  private static Duration duration(double seconds) {
    var duration = Play.duration(seconds);
    return Duration.newBuilder().setSeconds(duration.getSeconds()).setNanos(duration.getNano()).build();
  }

  private void create(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, Create.class);
    var policy = RetryPolicy.newBuilder().setMaxAttempts(say.maxAttempts);
    if (say.initialBackoff > 0) {
      policy.setInitialBackoff(duration(say.initialBackoff));
    }
    if (say.maximumBackoff > 0) {
      policy.setMaximumBackoff(duration(say.maximumBackoff));
    }
    var request = CreateGroupRequest.newBuilder()
        .setName(say.group)
        .setTenantId(play.tenant)
        .addAllEventTypes(Play.orNone(say.eventTypes))
        .setRetryPolicy(policy);
    if (say.ackDeadline > 0) {
      request.setAckDeadline(duration(say.ackDeadline));
    }
    var groups = play.broker.groups().withDeadlineAfter(Play.PATIENCE.toSeconds(), TimeUnit.SECONDS);
    Refusal.or(say.error, () -> groups.createGroup(request.build()));
  }

  /** Waits until a group is done with everything that the case has published. */
  private void settled(JsonNode arguments) throws Exception {
    var request = WaitForGroupRequest.newBuilder()
        .setName(Case.read(arguments, Settled.class).group)
        .setTenantId(play.tenant)
        .setPosition(play.position)
        .setTimeout(duration(5))
        .build();
    Play.eventually(unused -> {
      var answer = play.broker.groups().withDeadlineAfter(Play.PATIENCE.toSeconds(), TimeUnit.SECONDS)
          .waitForGroup(request);
      Play.check(answer.getReached(), "settled up to " + answer.getSettledPosition() + " of " + play.position);
    });
  }

  private void deadLetters(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, DeadLetters.class);
    var request = ListDeadLettersRequest.newBuilder().setGroup(say.group).setTenantId(play.tenant).build();
    Play.eventually(unused -> {
      var all = play.broker.deadLetters().withDeadlineAfter(Play.PATIENCE.toSeconds(), TimeUnit.SECONDS)
          .listDeadLetters(request).getDeadLettersList();
      Play.same("dead letters", all.stream().map(DeadLetter::getEventId).sorted().toList(),
          say.events.stream().sorted().toList());
      same("reasons", all, DeadLetter::getReason, say.reasons);
      same("attempts", all, DeadLetter::getAttempts, say.attempts);
      same("rejected", all, DeadLetter::getRejected, say.rejected);
    });
  }

  private static <T> void same(String what, List<DeadLetter> all, Function<DeadLetter, T> of, Map<String, T> wanted) {
    if (wanted != null) {
      Play.same(what, all.stream().collect(Collectors.toMap(DeadLetter::getEventId, of)), wanted);
    }
  }

  private void redrive(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, Redrive.class);
    var filter = DeadLetterFilter.newBuilder().setAll(say.all).addAllEventIds(Play.orNone(say.events));
    var request = RedriveDeadLettersRequest.newBuilder()
        .setGroup(say.group)
        .setTenantId(play.tenant)
        .setFilter(filter)
        .build();
    var deadLetters = play.broker.deadLetters().withDeadlineAfter(Play.PATIENCE.toSeconds(), TimeUnit.SECONDS);
    var answer = Refusal.or(say.error, () -> deadLetters.redriveDeadLetters(request));
    if (answer != null) {
      Play.same("redriven and remaining", List.of(answer.getRedriven(), answer.getRemaining()),
          List.of(say.redriven, say.remaining));
    }
  }
}
