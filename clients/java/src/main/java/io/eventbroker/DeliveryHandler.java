package io.eventbroker;

/** Takes deliveries: see {@link EventBroker#consume} and {@link EventBroker#subscribe} for what becomes of them. */
@FunctionalInterface
public interface DeliveryHandler {
  /** Takes one. What it throws tells {@link EventBroker#consume} what is to become of the event. */
  void handle(Delivery delivery) throws Exception;
}
