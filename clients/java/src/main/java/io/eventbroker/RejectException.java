package io.eventbroker;

/** Thrown by a handler: no attempt can succeed, the event is to be a dead letter. The message is the reason. */
public class RejectException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public RejectException(String reason) {
    super(reason);
  }

  public RejectException(Throwable cause) {
    super(cause.getMessage() == null ? cause.getClass().getName() : cause.getMessage(), cause);
  }
}
