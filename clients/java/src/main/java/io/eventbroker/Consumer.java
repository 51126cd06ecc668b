package io.eventbroker;

import io.grpc.Context;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;

/** Hands the events of a group to a handler, several at a time, and settles them by what it does. */
public final class Consumer implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger("io.eventbroker");

  private final EventBroker broker;
  private final DeliveryHandler handler;
  private final Duration drainTimeout;
  private final ThreadPoolExecutor workers;
  private final Set<Delivery> held = ConcurrentHashMap.newKeySet();
  private final AtomicInteger open = new AtomicInteger(1); // the subscription, and each delivery until it is settled
  private final CompletableFuture<Void> ended = new CompletableFuture<>();
  private final Subscription subscription;
  private volatile boolean draining;
  private long drained; // when close() waits no more, by System.nanoTime()

  Consumer(EventBroker broker, String group, SubscribeOptions options, DeliveryHandler handler) {
    this.broker = broker;
    this.handler = handler;
    this.drainTimeout = options.drainTimeout();
    var number = new AtomicInteger();
    workers = new ThreadPoolExecutor(
        options.concurrency(), options.concurrency(), 0, TimeUnit.SECONDS, new LinkedBlockingQueue<>(), work -> {
          var thread = new Thread(work, "eventbroker-" + group + "-" + number.incrementAndGet());
          thread.setDaemon(true);
          return thread;
        });
    subscription = new Subscription(broker, options.ofConsumer().request(group), this::take, this::lose);
  }

  void start() {
    subscription.opened.thenAccept(opened -> {
      var deadline = opened.ackDeadline();
      Future<?> extending = broker.calls.every(deadline.dividedBy(3), () -> extend(deadline));
      ended.whenComplete((nothing, thrown) -> extending.cancel(false));
    });
    subscription.ended().whenComplete((nothing, thrown) -> closed());
    subscription.open();
  }

  /**
   * Completes when all is over: normally after a drain, otherwise with an {@link EventBrokerException}, when the broker
   * refuses, the group was deleted (GROUP_DELETED), or another consumer took over this one's id (REPLACED).
   */
  public CompletableFuture<Void> ended() {
    return ended.copy();
  }

  /**
   * Begins to drain: no more handlers start, those that run may end, their events are settled, and the rest goes to
   * other consumers at once. Handlers that still run after the drain timeout are interrupted, and their events go to
   * others.
   */
  public void drain() {
    var waiting = new ArrayList<Runnable>();
    synchronized (this) {
      if (draining) {
        return;
      }
      draining = true;
      drained = System.nanoTime() + drainTimeout.plusSeconds(1).toNanos();
      workers.getQueue().drainTo(waiting);
    }
    subscription.drain();
    Context.ROOT.run(() -> waiting.forEach(Runnable::run)); // which releases them
    broker.calls.after(drainTimeout, () -> {
      held.forEach(Delivery::lose);
      subscription.close();
    });
  }

  /**
   * Drains, and waits until it is over, or until the drain timeout, counted from when the drain began. A handler that
   * does not end when it is interrupted is left behind.
   */
  @Override
  public void close() {
    drain();
    long end;
    synchronized (this) {
      end = drained;
    }
    try {
      ended.handle((nothing, thrown) -> null).get(end - System.nanoTime(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    } catch (TimeoutException late) {
      LOG.log(System.Logger.Level.WARNING, "a handler goes on after the drain timeout");
    } catch (ExecutionException never) {
      throw new AssertionError(never);
    }
  }

  private void take(Delivery delivery) {
    open.incrementAndGet();
    held.add(delivery);
    synchronized (this) {
      if (!draining) {
        workers.execute(() -> work(delivery));
        return;
      }
    }
    work(delivery); // it is not to wait behind handlers that are busy
  }

  private void lose(Stream stream) {
    for (var each : held) {
      if (each.stream == stream) {
        held.remove(each);
        each.lose();
      }
    }
  }

  private void work(Delivery delivery) {
    if (draining) {
      settled(delivery, "release", delivery.nack("", Nack.release()));
    } else if (delivery.begin()) {
      handle(delivery);
    } else {
      closed();
    }
  }

  private void handle(Delivery delivery) {
    Throwable failed = null;
    try {
      handler.handle(delivery);
    } catch (Throwable thrown) { // also an Error: the event is not handled, and the worker goes on
      failed = thrown;
    }
    if (!delivery.end()) {
      warn(delivery, "was lost while it was handled", failed);
      held.remove(delivery);
      closed();
    } else if (failed == null) {
      settled(delivery, "ack", delivery.ack());
    } else {
      warn(delivery, "handler", failed);
      var said = failed.getMessage();
      var reason = said == null || said.isEmpty() ? failed.getClass().getName() : said;
      settled(delivery, "nack", delivery.nack(reason, verdict(failed)));
    }
  }

  /** What the handler wants, wherever in the chain of causes it says so. */
  static Nack verdict(Throwable failed) {
    for (var cause = failed; cause != null; cause = cause.getCause()) {
      if (cause instanceof RejectException) {
        return Nack.toDeadLetters();
      }
      if (cause instanceof RetryAfterException later) {
        return Nack.after(later.delay());
      }
    }
    return Nack.retry();
  }

  private void settled(Delivery delivery, String what, CompletableFuture<Outcome> settling) {
    settling.whenComplete((outcome, thrown) -> {
      held.remove(delivery);
      if (thrown != null) {
        warn(delivery, what, thrown);
      }
      closed();
    });
  }

  /** One less of what is open; at the end the rest is shut. */
  private void closed() {
    if (open.decrementAndGet() > 0) {
      return;
    }
    workers.shutdown();
    subscription.ended().whenComplete((nothing, thrown) -> {
      if (thrown == null) {
        ended.complete(null);
      } else {
        ended.completeExceptionally(EventBrokerException.of(thrown));
      }
    });
  }

  /** Gives what is held more time. */
  private void extend(Duration deadline) {
    var deliveries = List.copyOf(held);
    if (deliveries.isEmpty()) {
      return;
    }
    broker.extend(deliveries.stream().map(Delivery::ackId).toList(), deadline, deadline.dividedBy(3))
        .whenComplete((outcomes, thrown) -> {
          if (thrown != null) {
            LOG.log(System.Logger.Level.WARNING, "cannot extend deadlines", thrown);
            return;
          }
          for (int number = 0; number < outcomes.size(); number++) {
            if (outcomes.get(number) == Outcome.OUTDATED) {
              held.remove(deliveries.get(number));
              deliveries.get(number).lose();
            }
          }
        });
  }

  private static void warn(Delivery delivery, String what, Throwable thrown) {
    var text = "event " + delivery.event().getEventId() + ", attempt " + delivery.attempt() + ": " + what;
    LOG.log(System.Logger.Level.WARNING, text, thrown);
  }
}
