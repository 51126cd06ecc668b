package io.eventbroker;

import io.eventbroker.v1.Closing;
import io.eventbroker.v1.ConsumeRequest;
import io.eventbroker.v1.ConsumeResponse;
import io.eventbroker.v1.DeliveryBatch;
import io.eventbroker.v1.Drain;
import io.eventbroker.v1.SubscribeRequest;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.time.Duration;
import java.time.Instant;

/**
 * One Consume call. It brings deliveries and can be drained; settling goes by unary calls, which can be made again and
 * outlive it.
 */
final class Stream implements ClientResponseObserver<ConsumeRequest, ConsumeResponse> {
  private final Subscription subscription;
  private final long began = System.nanoTime();
  private ClientCallStreamObserver<ConsumeRequest> call;
  private volatile boolean gone;
  private volatile boolean opened;
  private Closing closing = Closing.getDefaultInstance();

  Stream(Subscription subscription) {
    this.subscription = subscription;
  }

  boolean isGone() {
    return gone;
  }

  boolean isOpened() {
    return opened;
  }

  void setOpened() {
    opened = true;
  }

  Duration age() {
    return Duration.ofNanos(System.nanoTime() - began);
  }

  @Override
  public void beforeStart(ClientCallStreamObserver<ConsumeRequest> call) {
    this.call = call;
  }

  void open(SubscribeRequest request) {
    send(ConsumeRequest.newBuilder().setOpen(request));
  }

  void drain() {
    send(ConsumeRequest.newBuilder().setDrain(Drain.getDefaultInstance()));
  }

  private synchronized void send(ConsumeRequest.Builder request) {
    if (!gone) { // if it is broken its reader hears
      call.onNext(request.build());
    }
  }

  void cancel(String why) {
    synchronized (this) { // so nothing is sent any more
      gone = true;
    }
    call.cancel(why, null);
  }

  @Override
  public void onNext(ConsumeResponse message) {
    var said = message.getSubscription();
    switch (said.getResponseCase()) {
      case OPENED -> subscription.opened(this, said.getOpened());
      case DELIVERIES -> deliver(said.getDeliveries());
      case CLOSING -> closing = said.getClosing();
      default -> {}
    }
  }

  private void deliver(DeliveryBatch batch) {
    var until = batch.getAckDeadline();
    var deadline = Instant.ofEpochSecond(until.getSeconds(), until.getNanos());
    for (var each : batch.getDeliveriesList()) {
      subscription.deliver(new Delivery(subscription.broker, this, each, deadline));
    }
  }

  @Override
  public void onError(Throwable thrown) {
    gone = true;
    subscription.over(this, closing, EventBrokerException.of(thrown));
  }

  @Override
  public void onCompleted() {
    gone = true;
    subscription.over(this, closing, null);
  }
}
