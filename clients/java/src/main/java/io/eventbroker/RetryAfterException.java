package io.eventbroker;

import java.time.Duration;

/** Thrown by a handler: the event is to be tried again after this time. The message is the reason. */
public class RetryAfterException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final Duration delay;

  public RetryAfterException(String reason, Duration delay) {
    super(reason);
    this.delay = delay;
  }

  public RetryAfterException(Throwable cause, Duration delay) {
    super(cause.getMessage() == null ? cause.getClass().getName() : cause.getMessage(), cause);
    this.delay = delay;
  }

  public Duration delay() {
    return delay;
  }
}
