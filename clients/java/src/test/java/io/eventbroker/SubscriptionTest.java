package io.eventbroker;

import io.eventbroker.v1.Closing;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CyclicBarrier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class SubscriptionTest {
  /** Whose end waits until both are at it, and then ends the other. */
  private static Subscription subscription(EventBroker broker, CyclicBarrier both, List<Subscription> all) {
    var made = new Subscription(broker, SubscribeOptions.defaults().request("g"), delivery -> {}, lost -> {});
    made.ended().whenComplete((nothing, thrown) -> {
      try {
        both.await();
      } catch (Exception broken) {
        throw new IllegalStateException(broken);
      }
      all.forEach(Subscription::drain);
    });
    return made;
  }

  @Test
  void theEndOfASubscriptionMayEndAnotherThatEnds() throws Exception {
    try (var scripted = new ScriptedBroker(); var broker = scripted.connect()) {
      var all = new ArrayList<Subscription>();
      var both = new CyclicBarrier(2);
      all.add(subscription(broker, both, all));
      all.add(subscription(broker, both, all));
      var refused = EventBrokerException.of(Status.PERMISSION_DENIED.asRuntimeException());
      var ends = all.stream()
          .map(each -> CompletableFuture.runAsync(
              () -> each.over(new Stream(each), Closing.getDefaultInstance(), refused), run -> new Thread(run).start()))
          .toList();
      ends.forEach(CompletableFuture::join);
    }
  }
}
