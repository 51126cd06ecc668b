package io.eventbroker;

import static io.eventbroker.EventBrokerException.GROUP_DELETED;
import static io.eventbroker.EventBrokerException.REPLACED;

import io.eventbroker.v1.Closing;
import io.eventbroker.v1.Opened;
import io.eventbroker.v1.SubscribeRequest;
import io.eventbroker.v1.SubscriberServiceGrpc;
import io.grpc.Context;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.function.Consumer;

/**
 * A consumer of a group. It reconnects by itself; what it held when a connection broke comes again, to it or to others.
 * Safe for concurrent use.
 */
public final class Subscription implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger("io.eventbroker");
  private static final Duration OPEN_TIMEOUT = Duration.ofSeconds(10);

  final EventBroker broker;
  final CompletableFuture<Subscription> opened = new CompletableFuture<>();
  private final CompletableFuture<Void> ended = new CompletableFuture<>();
  private final SubscribeRequest.Builder request;
  private final Consumer<Delivery> take;
  private final Consumer<Stream> lose;
  private Duration ackDeadline = Duration.ZERO;
  private Stream current;
  private int tries;
  private boolean draining;

  /** Hands deliveries to `take`, and streams that are over to `lose`. */
  Subscription(EventBroker broker, SubscribeRequest.Builder request, Consumer<Delivery> take, Consumer<Stream> lose) {
    this.broker = broker;
    this.request = request;
    this.take = take;
    this.lose = lose;
  }

  /**
   * Completes when no more will come: normally when it was drained or closed, otherwise with an
   * {@link EventBrokerException}, such as of the reason REPLACED or GROUP_DELETED.
   */
  public CompletableFuture<Void> ended() {
    return ended.copy();
  }

  /** Says that no more is wanted. What is out can be settled; then the subscription ends. */
  public void drain() {
    synchronized (this) {
      if (draining) {
        return;
      }
      draining = true;
      if (current != null && current.isOpened() && !current.isGone()) {
        current.drain();
        return;
      }
    }
    close(); // nothing is out
  }

  /** Ends it. What is out goes to others at once, and {@link Delivery#isLost} tells so. */
  @Override
  public void close() {
    finish(null);
    synchronized (this) {
      if (current != null) {
        current.cancel("closed");
      }
    }
  }

  synchronized Duration ackDeadline() {
    return ackDeadline;
  }

  synchronized void open() {
    if (ended.isDone()) {
      return;
    }
    tries++;
    var stream = new Stream(this);
    current = stream;
    // Not in the context of whoever subscribes: it outlives their call.
    Context.ROOT.run(() -> SubscriberServiceGrpc.newStub(broker.calls.channel).consume(stream));
    stream.open(request.build());
    broker.calls.after(OPEN_TIMEOUT, () -> {
      if (!stream.isOpened()) {
        stream.cancel("not open in time");
      }
    });
  }

  void opened(Stream stream, Opened said) {
    synchronized (this) {
      if (ended.isDone()) {
        return;
      }
      stream.setOpened();
      if (!request.getGroup().isEmpty()) {
        request.setConsumerId(said.getConsumerId()); // it takes over from what is left of the stream before
      }
      ackDeadline = Duration.ofSeconds(said.getAckDeadline().getSeconds(), said.getAckDeadline().getNanos());
    }
    opened.complete(this);
  }

  void deliver(Delivery delivery) {
    if (!ended.isDone()) {
      take.accept(delivery);
    }
  }

  /** A stream is over, of which there is one at a time. */
  void over(Stream stream, Closing closing, EventBrokerException error) {
    lose.accept(stream);
    boolean last;
    boolean ephemeral;
    int number;
    synchronized (this) { // not around what follows: whoever hears of the end may call anything
      if (ended.isDone()) {
        return;
      }
      last = draining;
      ephemeral = request.getGroup().isEmpty();
      if (stream.age().compareTo(Backoff.MOST) > 0 && stream.isOpened()) {
        tries = 1;
      }
      number = tries;
    }
    var cause = stream.isOpened() || error != null
        ? error : EventBrokerException.unavailable("the stream ended before it was open");
    switch (closing.getReason()) {
      case CLOSING_REASON_REPLACED ->
          finish(EventBrokerException.ended(REPLACED, "another stream took over this consumer id"));
      case CLOSING_REASON_GROUP_DELETED ->
          finish(EventBrokerException.ended(GROUP_DELETED, "the group was deleted"));
      default -> {
        if (last) {
          finish(null); // whatever ended it, nothing is out any more
        } else if (cause != null && !cause.isRetryable()) {
          finish(cause.withoutPrefix("open."));
        } else if (ephemeral && stream.isOpened()) {
          // The group is gone with its stream, and with it the place in the log.
          finish(cause == null ? EventBrokerException.unavailable("the stream ended") : cause);
        } else {
          again(number, closing, cause);
        }
      }
    }
  }

  private void again(int number, Closing closing, EventBrokerException cause) {
    LOG.log(System.Logger.Level.INFO, "subscribing again to {0}: {1}", request.getGroup(),
        cause == null ? closing.getReason() : cause);
    var said = Duration.ofSeconds(closing.getRetryAfter().getSeconds(), closing.getRetryAfter().getNanos());
    var atLeast = cause == null ? said : cause.retryAfter();
    var planned = broker.calls.after(Backoff.before(number, atLeast), () -> {
      broker.calls.channel.resetConnectBackoff(); // gRPC alone would wait longer for the connection than we do
      open();
    });
    if (planned == null) {
      finish(cause == null ? EventBrokerException.unavailable("the client is closed") : cause);
    }
  }

  private void finish(EventBrokerException error) {
    if (error == null) {
      ended.complete(null);
      opened.cancel(false);
    } else {
      ended.completeExceptionally(error);
      opened.completeExceptionally(error);
    }
  }
}
