package io.eventbroker;

import java.time.Duration;

/** Thrown by a handler: the event is to be tried again after this time. The message is the reason. */
public class RetryAfterException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final Duration delay;

  /** For this reason. */
  public RetryAfterException(String reason, Duration delay) {
    super(reason);
    this.delay = delay;
  }

  /** For the reason that the message of the cause tells. */
  public RetryAfterException(Throwable cause, Duration delay) {
    super(cause.getMessage() == null ? cause.getClass().getName() : cause.getMessage(), cause);
    this.delay = delay;
  }

  /** The time until the next attempt. */
  public Duration delay() {
    return delay;
  }
}
