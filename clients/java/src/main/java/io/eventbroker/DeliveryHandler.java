package io.eventbroker;

/** Takes deliveries: see {@link EventBroker#consume} and {@link EventBroker#subscribe} for what becomes of them. */
@FunctionalInterface
public interface DeliveryHandler {
  void handle(Delivery delivery) throws Exception;
}
