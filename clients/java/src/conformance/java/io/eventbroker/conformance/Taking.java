package io.eventbroker.conformance;

import io.eventbroker.Delivery;
import io.eventbroker.Subscription;
import java.time.Duration;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A subscription that a case takes from by hand. */
final class Taking implements AutoCloseable {
  Subscription subscription;
  private final BlockingQueue<Delivery> came = new LinkedBlockingQueue<>();

  void add(Delivery delivery) {
    came.add(delivery);
  }

  /** null: none came in time. */
  Delivery next(Duration within) throws Exception {
    var delivery = came.poll(within.toMillis(), TimeUnit.MILLISECONDS);
    if (delivery == null && subscription.ended().isDone()) {
      Play.answer(subscription.ended(), Duration.ZERO);
      throw new AssertionError("the subscription is over");
    }
    return delivery == null || delivery.isLost() ? null : delivery; // one that is lost comes again
  }

  @Override
  public void close() {
    subscription.close();
  }
}
