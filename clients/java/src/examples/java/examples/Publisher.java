package examples;

import io.eventbroker.EventBroker;
import io.eventbroker.EventBrokerException;
import io.eventbroker.Events;
import io.eventbroker.Expect;
import io.eventbroker.events.v1.UserCreated;
import io.eventbroker.events.v1.UserStatusChanged;
import java.util.List;
import java.util.concurrent.CompletionException;

/** Publishes that a user was created, and then that its status changed. */
public final class Publisher {
  public static void main(String[] arguments) {
    var target = System.getenv().getOrDefault("EVENTBROKER_URL", "127.0.0.1:50051");
    try (var broker = EventBroker.connect(target)) {
      publish(broker);
    }
  }

  private static void publish(EventBroker broker) {
    var user = "u-" + Events.newId();
    var created = Events.userCreated("acme", user, UserCreated.newBuilder()
        .setEmail("ada@example.com")
        .setUsername("ada")
        .setFirstName("Ada")
        .setLastName("Lovelace")
        .setStatus("active")
        .build());
    var result = broker.publish(created).join();
    System.out.println(created.getEventType() + " is at position " + result.getPosition());

    var locked = Events.userStatusChanged("acme", user, UserStatusChanged.newBuilder()
        .setOldStatus("active")
        .setNewStatus("locked")
        .setReason("asked for")
        .build());
    var untouched = Expect.atVersion("User", user, result.getAggregateVersion());
    try {
      broker.publishMany(List.of(locked), untouched).join();
    } catch (CompletionException failed) {
      var why = EventBrokerException.of(failed);
      if (!why.reason().equals("VERSION_CONFLICT")) {
        throw why;
      }
      System.out.println("somebody else was faster: " + why.conflicts());
      return;
    }
    System.out.println(locked.getEventType() + " is stored");
  }
}
