package io.eventbroker;

import io.eventbroker.v1.FlowControl;
import io.eventbroker.v1.StartPoint;
import io.eventbroker.v1.SubscribeRequest;
import java.time.Duration;
import java.util.List;

/**
 * What a consumer wants. What is left out is the group's, or the broker's default. Each method makes changed options.
 */
public final class SubscribeOptions {
  private final SubscribeRequest request;
  private final int concurrency;
  private final Duration drainTimeout;

  private SubscribeOptions(SubscribeRequest request, int concurrency, Duration drainTimeout) {
    this.request = request;
    this.concurrency = concurrency;
    this.drainTimeout = drainTimeout;
  }

  /** Nothing said. */
  public static SubscribeOptions defaults() {
    return new SubscribeOptions(SubscribeRequest.getDefaultInstance(), 16, Duration.ofSeconds(30));
  }

  private SubscribeOptions with(SubscribeRequest.Builder changed) {
    return new SubscribeOptions(changed.build(), concurrency, drainTimeout);
  }

  private SubscribeOptions with(FlowControl.Builder changed) {
    return with(request.toBuilder().setFlowControl(changed));
  }

  /** The tenant whose events the group gets. Left out: the caller's, or all. */
  public SubscribeOptions tenantId(String tenantId) {
    return with(request.toBuilder().setTenantId(tenantId));
  }

  /** Names such as "user.created", wildcards such as "user.*", or "*". */
  public SubscribeOptions eventTypes(String... eventTypes) {
    return with(request.toBuilder().clearEventTypes().addAllEventTypes(List.of(eventTypes)));
  }

  /** Names this consumer, the same over reconnects. Left out: the broker makes one up. */
  public SubscribeOptions consumerId(String consumerId) {
    return with(request.toBuilder().setConsumerId(consumerId));
  }

  /** Where a group starts that is made by this. */
  public SubscribeOptions start(StartPoint start) {
    return with(request.toBuilder().setStart(start));
  }

  /** How long the consumers of the group have to settle an event, when it is made by this. */
  public SubscribeOptions ackDeadline(Duration ackDeadline) {
    return with(request.toBuilder().setAckDeadline(Nack.duration(ackDeadline)));
  }

  /**
   * How many events this consumer may have out. For {@link EventBroker#consume} it is twice the concurrency by default.
   */
  public SubscribeOptions maxUnsettled(int events) {
    return with(request.getFlowControl().toBuilder().setMaxUnsettledEvents(events));
  }

  /** Their size. */
  public SubscribeOptions maxUnsettledBytes(long bytes) {
    return with(request.getFlowControl().toBuilder().setMaxUnsettledBytes(bytes));
  }

  /** How many handlers {@link EventBroker#consume} runs at once. Default 16. */
  public SubscribeOptions concurrency(int handlers) {
    return new SubscribeOptions(request, handlers, drainTimeout);
  }

  /** How long a {@link Consumer} waits for its handlers when it drains. Default 30 s. */
  public SubscribeOptions drainTimeout(Duration timeout) {
    return new SubscribeOptions(request, concurrency, timeout);
  }

  int concurrency() {
    return concurrency;
  }

  Duration drainTimeout() {
    return drainTimeout;
  }

  SubscribeOptions ofConsumer() {
    int events = request.getFlowControl().getMaxUnsettledEvents();
    return events == 0 ? maxUnsettled(Math.min(2 * concurrency, 10_000)) : this;
  }

  SubscribeRequest.Builder request(String group) {
    return request.toBuilder().setGroup(group);
  }
}
