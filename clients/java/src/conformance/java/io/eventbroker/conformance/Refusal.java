package io.eventbroker.conformance;

import io.eventbroker.EventBrokerException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;

/** The error that a step expects. */
record Refusal(
    String code, String reason, boolean retryable, List<String> fields, Map<String, String> metadata,
    List<String> conflicts) {

  /** What the call answers; null: it was refused, as it should be. */
  static <T> T or(Refusal expected, Callable<T> call) throws Exception {
    T answer;
    try {
      answer = call.call();
    } catch (RuntimeException thrown) {
      if (expected == null) {
        throw thrown;
      }
      expected.check(EventBrokerException.of(thrown));
      return null;
    }
    Play.check(expected == null, "no error, where one was to come: " + expected);
    return answer;
  }

  private void check(EventBrokerException got) {
    var same = got.code().name().equals(code) && got.reason().equals(reason) && got.isRetryable() == retryable;
    Play.check(same, "another error than " + this + ": " + got + ", retryable " + got.isRetryable());
    if (metadata != null) {
      Play.check(got.metadata().entrySet().containsAll(metadata.entrySet()), "metadata is " + got.metadata());
    }
    var broken = got.violations().stream().map(EventBrokerException.Violation::field).sorted().toList();
    Play.same("fields", broken, Play.orNone(fields).stream().sorted().toList());
    var aggregates = got.conflicts().stream().map(EventBrokerException.Conflict::aggregate).toList();
    Play.same("conflicts", aggregates, Play.orNone(conflicts));
  }
}
