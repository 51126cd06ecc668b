package io.eventbroker;

import com.google.protobuf.Duration;
import io.eventbroker.v1.NackAction;
import io.eventbroker.v1.NackRequest;

/** What is to become of an event that was not handled. */
public final class Nack {
  private static final int MOST_REASON = 1024; // characters

  private final NackAction action;
  private final java.time.Duration delay;

  private Nack(NackAction action, java.time.Duration delay) {
    this.action = action;
    this.delay = delay;
  }

  /** It is tried again after the group's back-off. */
  public static Nack retry() {
    return new Nack(NackAction.NACK_ACTION_RETRY, null);
  }

  /** It is tried again after this time, instead of the group's back-off. */
  public static Nack after(java.time.Duration delay) {
    return new Nack(NackAction.NACK_ACTION_RETRY, delay);
  }

  /** It is a dead letter now. */
  public static Nack toDeadLetters() {
    return new Nack(NackAction.NACK_ACTION_DEAD_LETTER, null);
  }

  /** It goes to any consumer of the group at once, and no attempt is counted. */
  public static Nack release() {
    return new Nack(NackAction.NACK_ACTION_RELEASE, null);
  }

  NackRequest.Builder request(String reason) {
    var request = NackRequest.newBuilder().setAction(action).setReason(asReason(reason));
    if (delay != null) {
      request.setDelay(duration(delay));
    }
    return request;
  }

  static Duration duration(java.time.Duration time) {
    return Duration.newBuilder().setSeconds(time.getSeconds()).setNanos(time.getNano()).build();
  }

  /** Makes any text one that the broker takes: valid, without control characters, not too long. */
  static String asReason(String text) {
    var reason = new StringBuilder();
    text.codePoints()
        .limit(MOST_REASON)
        .map(each -> Character.isISOControl(each) ? ' ' : each)
        .map(each -> Character.getType(each) == Character.SURROGATE ? 0xFFFD : each)
        .forEach(reason::appendCodePoint);
    return reason.toString();
  }
}
