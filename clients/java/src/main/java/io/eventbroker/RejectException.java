package io.eventbroker;

/** Thrown by a handler: no attempt can succeed, the event is to be a dead letter. The message is the reason. */
public class RejectException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** For this reason. */
  public RejectException(String reason) {
    super(reason);
  }

  /** For the reason that the message of the cause tells. */
  public RejectException(Throwable cause) {
    super(cause.getMessage() == null ? cause.getClass().getName() : cause.getMessage(), cause);
  }
}
