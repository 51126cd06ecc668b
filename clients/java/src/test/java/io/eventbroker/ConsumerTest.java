package io.eventbroker;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.eventbroker.v1.NackAction;
import io.eventbroker.v1.SettleOutcome;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ConsumerTest {
  private final SubscribeOptions options = SubscribeOptions.defaults();
  private ScriptedBroker scripted;
  private EventBroker broker;

  @BeforeEach
  void connect() throws IOException {
    scripted = new ScriptedBroker();
    broker = scripted.connect();
  }

  @AfterEach
  void close() throws InterruptedException {
    broker.close();
    scripted.close();
  }

  @Test
  void anErrorOfAHandlerIsANackToo() throws InterruptedException {
    broker.consume("g", options, delivery -> {
      throw new AssertionError("no\nluck");
    });
    var nacked = scripted.nacked.take();
    assertEquals("no luck", nacked.getReason());
    assertEquals(List.of("a1"), nacked.getAckIdsList());
  }

  @Test
  void aWrappedRejectionIsARejection() throws InterruptedException {
    broker.consume("g", options, delivery -> {
      throw new IllegalStateException("told", new RejectException("never"));
    });
    assertEquals(NackAction.NACK_ACTION_DEAD_LETTER, scripted.nacked.take().getAction());
  }

  /** Waits until it is interrupted. */
  private static DeliveryHandler untilInterrupted(BlockingQueue<Delivery> begun, BlockingQueue<Delivery> interrupted) {
    return delivery -> {
      begun.add(delivery);
      try {
        new CountDownLatch(1).await();
      } finally {
        interrupted.add(delivery);
      }
    };
  }

  @Test
  void aHandlerWhoseDeliveryIsLostIsInterrupted() throws InterruptedException {
    scripted.deadline = Duration.ofMillis(100);
    scripted.extended = SettleOutcome.SETTLE_OUTCOME_OUTDATED;
    var interrupted = new LinkedBlockingQueue<Delivery>();
    var consumer = broker.consume("g", options, untilInterrupted(new LinkedBlockingQueue<>(), interrupted));
    assertTrue(interrupted.take().isLost());
    consumer.close();
    assertTrue(scripted.nacked.isEmpty(), "settled what was lost");
    assertFalse(Thread.currentThread().isInterrupted());
  }

  @Test
  void aHandlerThatOutlastsTheDrainTimeoutIsInterrupted() throws InterruptedException {
    var begun = new LinkedBlockingQueue<Delivery>();
    var interrupted = new LinkedBlockingQueue<Delivery>();
    var brief = options.drainTimeout(Duration.ofMillis(100));
    var consumer = broker.consume("g", brief, untilInterrupted(begun, interrupted));
    begun.take();
    consumer.drain();
    consumer.ended().join();
    assertEquals(1, interrupted.size());
  }

  @Test
  void consumersThatAreStuckAreWaitedForSideBySide() throws InterruptedException {
    int many = 60; // one after the other they would outlast the timeout of the test
    var begun = new CountDownLatch(many);
    var free = new CompletableFuture<Void>();
    var brief = options.concurrency(1).drainTimeout(Duration.ofMillis(100));
    for (int number = 0; number < many; number++) {
      broker.consume("g", brief, delivery -> {
        begun.countDown();
        free.join(); // which an interrupt does not end
      });
    }
    begun.await();
    broker.close();
    free.complete(null);
  }

  @Test
  void aDrainDoesNotWaitForABrokerThatIsSilent() {
    scripted.opens = false;
    var consumer = broker.consume("g", options, delivery -> {});
    consumer.drain();
    assertTrue(consumer.ended().isDone());
  }

  @Test
  void acksOfTheSameTimeShareACall() throws InterruptedException {
    var mayAnswer = new CountDownLatch(1);
    scripted.ack = request -> {
      try {
        mayAnswer.await();
      } catch (InterruptedException interrupted) {
        throw new AssertionError(interrupted);
      }
      return SettleOutcome.SETTLE_OUTCOME_DONE;
    };
    var acks = new ArrayList<CompletableFuture<Outcome>>();
    for (int number = 0; number < 100; number++) { // while the first is under way the others wait
      acks.add(broker.ack("a" + number));
    }
    mayAnswer.countDown();
    for (var ack : acks) {
      assertEquals(Outcome.DONE, ack.join());
    }
    assertEquals(List.of(1, 99), scripted.acked.stream().map(each -> each.getAckIdsCount()).toList());
  }

  @Test
  void aSubscriptionSettlesByHand() throws InterruptedException {
    var audit = SubscribeOptions.defaults().tenantId("acme");
    var subscription = broker.subscribe("audit", audit, delivery -> delivery.ack()).join();
    assertEquals(List.of("a1"), scripted.acked.take().getAckIdsList());
    subscription.close();
    subscription.ended().join();
  }

  @Test
  void noThreadOutlivesTheClient() throws InterruptedException {
    broker.consume("g", options, delivery -> {});
    scripted.acked.take();
    assertFalse(ours().isEmpty());
    broker.close();
    for (var thread : ours()) {
      thread.join();
    }
  }

  private static List<Thread> ours() {
    return Thread.getAllStackTraces().keySet().stream()
        .filter(thread -> thread.getName().startsWith("eventbroker-"))
        .toList();
  }

  @Test
  void anyTextBecomesAReason() {
    assertEquals("", Nack.asReason(""));
    assertEquals("a  b ", Nack.asReason("a\r\nb\0"));
    assertEquals("\uFFFD ", Nack.asReason("\uD800\u0085"));
    assertEquals(1024, Nack.asReason("😀".repeat(2000)).codePoints().count());
  }
}
