package examples;

import com.google.protobuf.InvalidProtocolBufferException;
import io.eventbroker.Consumer;
import io.eventbroker.Delivery;
import io.eventbroker.EventBroker;
import io.eventbroker.RejectException;
import io.eventbroker.SubscribeOptions;
import io.eventbroker.events.v1.UserCreated;
import io.eventbroker.events.v1.UserStatusChanged;

/** A consumer: handles what happens to users, until it is interrupted. */
public final class Mailer {
  public static void main(String[] arguments) {
    var target = System.getenv().getOrDefault("EVENTBROKER_URL", "127.0.0.1:50051");
    try (var broker = EventBroker.connect(target)) {
      var mailer = SubscribeOptions.defaults().tenantId("acme").eventTypes("user.*");
      var consumer = broker.consume("mailer", mailer, Mailer::handle);
      drainAtExit(consumer);
      consumer.ended().join();
    }
    System.out.println("drained");
  }

  private static void handle(Delivery delivery) {
    var data = delivery.event().getMessage();
    try {
      if (data.is(UserCreated.class)) {
        System.out.println("welcome " + data.unpack(UserCreated.class).getFirstName());
      } else if (data.is(UserStatusChanged.class)) {
        System.out.println("now " + data.unpack(UserStatusChanged.class).getNewStatus());
      }
    } catch (InvalidProtocolBufferException broken) {
      throw new RejectException(broken); // no attempt can succeed: a dead letter; any other exception is a retry
    }
  }

  /** At Ctrl-C or SIGTERM the program ends when main does, which waits for the consumer. */
  private static void drainAtExit(Consumer consumer) {
    var main = Thread.currentThread();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      consumer.drain();
      try {
        main.join();
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
      }
    }));
  }
}
