package io.eventbroker;

import io.eventbroker.v1.Event;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** An event handed to this consumer. */
public final class Delivery {
  final Stream stream;
  private final io.eventbroker.v1.Delivery said;
  private final Instant deadline;
  private final EventBroker broker;
  private boolean lost;
  private Thread handler;

  Delivery(EventBroker broker, Stream stream, io.eventbroker.v1.Delivery said, Instant deadline) {
    this.broker = broker;
    this.stream = stream;
    this.said = said;
    this.deadline = deadline;
  }

  /** The event, as it was published. */
  public Event event() {
    return said.getEvent();
  }

  /** 1 the first time, and one more after each attempt that failed. */
  public int attempt() {
    return said.getAttempt();
  }

  /** Whether a seek made the group get the event again. */
  public boolean isReplay() {
    return said.getIsReplay();
  }

  /** Until when the event is this consumer's, by the broker's clock, if it is not extended. */
  public Instant deadline() {
    return deadline;
  }

  /** Names the delivery, for {@link EventBroker#ack} in another place. */
  public String ackId() {
    return said.getAckId();
  }

  /**
   * Whether the delivery is known to be over: its stream broke, or its deadline ran out. The event is, or will be, with
   * another handler.
   */
  public synchronized boolean isLost() {
    return lost || stream.isGone();
  }

  /** Settles the delivery: the event is done for the group. Acks that are made at the same time share a call. */
  public CompletableFuture<Outcome> ack() {
    return broker.ack(ackId());
  }

  /** Gives the delivery back, to be tried again after the group's back-off. */
  public CompletableFuture<Outcome> nack(String reason) {
    return nack(reason, Nack.retry());
  }

  /** Gives the delivery back. The reason is kept with the attempt; what is too long of it is cut. */
  public CompletableFuture<Outcome> nack(String reason, Nack nack) {
    return broker.nack(List.of(ackId()), reason, nack).thenApply(outcomes -> outcomes.get(0));
  }

  /** Gives the delivery more time, counted from now. */
  public CompletableFuture<Outcome> extend(Duration deadline) {
    return broker.extend(List.of(ackId()), deadline).thenApply(outcomes -> outcomes.get(0));
  }

  /** The present thread handles it from now on, unless it is lost. */
  synchronized boolean begin() {
    if (isLost()) {
      return false;
    }
    handler = Thread.currentThread();
    return true;
  }

  /** The handler is done; false: in vain. */
  synchronized boolean end() {
    handler = null;
    Thread.interrupted(); // that of lose() was for the handler
    return !lost;
  }

  synchronized void lose() {
    lost = true;
    if (handler != null) {
      handler.interrupt();
    }
  }
}
