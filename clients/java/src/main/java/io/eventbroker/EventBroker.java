package io.eventbroker;

import io.eventbroker.v1.AckRequest;
import io.eventbroker.v1.AggregateExpectation;
import io.eventbroker.v1.DeadLetterServiceGrpc;
import io.eventbroker.v1.DeadLetterServiceGrpc.DeadLetterServiceBlockingStub;
import io.eventbroker.v1.Event;
import io.eventbroker.v1.EventStoreServiceGrpc;
import io.eventbroker.v1.EventStoreServiceGrpc.EventStoreServiceBlockingStub;
import io.eventbroker.v1.ExtendDeadlineRequest;
import io.eventbroker.v1.GroupServiceGrpc;
import io.eventbroker.v1.GroupServiceGrpc.GroupServiceBlockingStub;
import io.eventbroker.v1.PublishMode;
import io.eventbroker.v1.PublishRequest;
import io.eventbroker.v1.PublishResult;
import io.eventbroker.v1.SettleResult;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * A connection to a broker. Safe for concurrent use; a process needs one.
 *
 * <p>Calls are made again while the broker is away or its answer got lost, until the deadline of the present
 * {@link io.grpc.Context}, or else for the patience of {@link ConnectOptions}.
 */
public final class EventBroker implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger("io.eventbroker");

  final Calls calls;
  private final Acks acks = new Acks(this::ackNow);
  private final ManagedChannel channel;
  private final Set<Subscription> subscriptions = ConcurrentHashMap.newKeySet();
  private final Set<Consumer> consumers = ConcurrentHashMap.newKeySet();

  private EventBroker(ManagedChannel channel, ConnectOptions options) {
    this.channel = channel;
    calls = new Calls(channel, options);
  }

  /** As {@link #connect(String, ConnectOptions)}, in plain text. */
  public static EventBroker connect(String target) {
    return connect(target, ConnectOptions.defaults());
  }

  /**
   * Connects to a broker, such as "127.0.0.1:50051", and waits until it answers. Afterwards the connection is renewed
   * by itself.
   *
   * @throws EventBrokerException there is no answer within the patience of the options
   */
  public static EventBroker connect(String target, ConnectOptions options) {
    return new EventBroker(Connecting.channel(target, options), options);
  }

  /** Manages consumer groups; as generated, so nothing is tried again. */
  public GroupServiceBlockingStub groups() {
    return GroupServiceGrpc.newBlockingStub(channel);
  }

  /** Shows and redrives what groups have given up; as generated. */
  public DeadLetterServiceBlockingStub deadLetters() {
    return DeadLetterServiceGrpc.newBlockingStub(channel);
  }

  /** Reads what is stored; as generated. */
  public EventStoreServiceBlockingStub events() {
    return EventStoreServiceGrpc.newBlockingStub(channel);
  }

  /** Stores one event. As {@link #publishMany}. */
  public CompletableFuture<PublishResult> publish(Event event) {
    return publishMany(List.of(event)).thenApply(results -> results.get(0));
  }

  /**
   * Stores 1 to 1,000 events, all or none, if the expectations hold. When the future completes normally they are
   * committed and flushed.
   *
   * <p>While the broker is away or its answer got lost, the same events are published again, with the same ids: so each
   * is stored once. An event that such a try has stored without our knowing is a duplicate then. After an {@link
   * EventBrokerException} that is definite nothing was stored.
   */
  public CompletableFuture<List<PublishResult>> publishMany(List<Event> events, AggregateExpectation... expectations) {
    return publish(PublishRequest.newBuilder().addAllEvents(events).addAllExpectations(List.of(expectations)).build());
  }

  /**
   * As {@link #publishMany}, but each event is decided for itself: some may be refused, as their results tell, and the
   * others stored. With an {@link EventBrokerException} come the results that are known.
   */
  public CompletableFuture<List<PublishResult>> publishPerEvent(List<Event> events) {
    return publish(
        PublishRequest.newBuilder().addAllEvents(events).setMode(PublishMode.PUBLISH_MODE_PER_EVENT).build());
  }

  private CompletableFuture<List<PublishResult>> publish(PublishRequest request) {
    var publishing = new Publishing(calls, request);
    return calls.repeat(publishing::attempt);
  }

  /**
   * Hands the events of a group to a handler, several at a time. When it returns the event is settled. When it throws,
   * the event is tried again after the group's back-off, with the message as the reason; {@link RejectException} makes
   * it a dead letter now, {@link RetryAfterException} says when to try again.
   *
   * <p>As long as the handler runs the deadline of its delivery is extended. It is interrupted when the delivery is
   * over anyway, such as by a connection that broke: another consumer has the event. The consumer reconnects by itself;
   * to end it, close it.
   */
  public Consumer consume(String group, SubscribeOptions options, DeliveryHandler handler) {
    var consumer = new Consumer(this, group, options, handler);
    consumers.add(consumer);
    consumer.ended().whenComplete((nothing, thrown) -> consumers.remove(consumer));
    consumer.start();
    return consumer;
  }

  /**
   * Joins a group, to settle by hand: the handler gets one delivery after the other, and must see to it that each is
   * settled before its deadline, or extended. It runs on a thread of gRPC, so it is not to block. What it throws is
   * logged, no more. An empty group is an ephemeral one, which ends when its connection breaks.
   *
   * <p>The future completes when the broker has answered, which is tried until then unless the broker refuses. To
   * cancel it ends the subscription.
   */
  public CompletableFuture<Subscription> subscribe(String group, SubscribeOptions options, DeliveryHandler handler) {
    var subscription = new Subscription(this, options.request(group), delivery -> {
      try {
        handler.handle(delivery);
      } catch (Exception thrown) {
        LOG.log(System.Logger.Level.WARNING, "event " + delivery.event().getEventId() + ": handler", thrown);
      }
    }, lost -> {});
    subscriptions.add(subscription);
    subscription.ended().whenComplete((nothing, thrown) -> subscriptions.remove(subscription));
    subscription.opened.whenComplete((opened, thrown) -> {
      if (thrown != null) {
        subscription.close();
      }
    });
    subscription.open();
    return subscription.opened;
  }

  /** Settles a delivery by its ack id, which may come from anywhere. Acks of the same time share a call. */
  public CompletableFuture<Outcome> ack(String ackId) {
    return acks.ack(ackId);
  }

  /** Settles deliveries by their ack ids. One outcome for each, in their order. */
  public CompletableFuture<List<Outcome>> ack(List<String> ackIds) {
    return ackIds.size() == 1 ? ack(ackIds.get(0)).thenApply(List::of) : ackNow(ackIds);
  }

  private CompletableFuture<List<Outcome>> ackNow(List<String> ackIds) {
    var request = AckRequest.newBuilder().addAllAckIds(ackIds).build();
    return calls.repeat(bound ->
        Calls.future(calls.subscriber(bound).ack(request)).thenApply(answer -> outcomes(answer.getResultsList())));
  }

  /** Gives deliveries back by their ack ids. The reason is kept with the attempt; what is too long of it is cut. */
  public CompletableFuture<List<Outcome>> nack(List<String> ackIds, String reason, Nack nack) {
    var request = nack.request(reason).addAllAckIds(ackIds).build();
    return calls.repeat(bound ->
        Calls.future(calls.subscriber(bound).nack(request)).thenApply(answer -> outcomes(answer.getResultsList())));
  }

  /** Gives deliveries more time by their ack ids, counted from now. */
  public CompletableFuture<List<Outcome>> extend(List<String> ackIds, Duration deadline) {
    return calls.repeat(extending(ackIds, deadline));
  }

  CompletableFuture<List<Outcome>> extend(List<String> ackIds, Duration deadline, Duration patience) {
    return calls.repeat(patience, extending(ackIds, deadline));
  }

  private Function<Duration, CompletableFuture<List<Outcome>>> extending(List<String> ackIds, Duration deadline) {
    var request = ExtendDeadlineRequest.newBuilder().addAllAckIds(ackIds).setDeadline(Nack.duration(deadline)).build();
    return bound -> Calls.future(calls.subscriber(bound).extendDeadline(request))
        .thenApply(answer -> outcomes(answer.getResultsList()));
  }

  private static List<Outcome> outcomes(List<SettleResult> results) {
    return results.stream().map(Outcome::of).toList();
  }

  /** Drains the consumers, side by side, and waits for them; ends the subscriptions, and closes the connection. */
  @Override
  public void close() {
    consumers.forEach(Consumer::drain);
    consumers.forEach(Consumer::close);
    subscriptions.forEach(Subscription::close);
    calls.close();
    channel.shutdown();
    try {
      if (!channel.awaitTermination(5, TimeUnit.SECONDS)) {
        channel.shutdownNow();
      }
    } catch (InterruptedException interrupted) {
      channel.shutdownNow();
      Thread.currentThread().interrupt();
    }
  }
}
