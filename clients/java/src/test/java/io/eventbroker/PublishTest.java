package io.eventbroker;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import io.eventbroker.v1.Event;
import io.eventbroker.v1.PublishError;
import io.eventbroker.v1.PublishOutcome;
import io.eventbroker.v1.PublishResponse;
import io.eventbroker.v1.PublishResult;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.IOException;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class PublishTest {
  private static final Event EVENT = Event.newBuilder().setEventId("e1").build();

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

  private static PublishResult stored(String id) {
    return PublishResult.newBuilder().setEventId(id).setOutcome(PublishOutcome.PUBLISH_OUTCOME_STORED).build();
  }

  private static PublishResult refused(String id, Status.Code code) {
    return PublishResult.newBuilder()
        .setEventId(id)
        .setOutcome(PublishOutcome.PUBLISH_OUTCOME_REFUSED)
        .setError(PublishError.newBuilder().setCode(code.value()))
        .build();
  }

  private static ConnectOptions patience(Duration patience) {
    return ConnectOptions.defaults().withPatience(patience);
  }

  private static StatusRuntimeException refusal(Status.Code code, String reason) {
    var info = ErrorInfo.newBuilder().setDomain("eventbroker").setReason(reason).build();
    return StatusProto.toStatusRuntimeException(
        com.google.rpc.Status.newBuilder().setCode(code.value()).addDetails(Any.pack(info)).build());
  }

  @Test
  void onlyEventsOfUnknownOutcomeArePublishedAgain() {
    scripted.publish = request -> {
      var response = PublishResponse.newBuilder();
      for (var event : request.getEventsList()) {
        response.addResults(switch (event.getEventId()) {
          case "bad" -> refused("bad", Status.Code.INVALID_ARGUMENT);
          case "late" -> scripted.published.size() < 3 ? refused("late", Status.Code.UNAVAILABLE) : stored("late");
          default -> stored(event.getEventId());
        });
      }
      return response.build();
    };
    var events = Stream.of("bad", "late", "good").map(id -> Event.newBuilder().setEventId(id).build()).toList();
    var got = broker.publishPerEvent(events).join();
    assertEquals(List.of(refused("bad", Status.Code.INVALID_ARGUMENT), stored("late"), stored("good")), got);
    var asked = List.copyOf(scripted.published);
    assertEquals(List.of(3, 1, 1), asked.stream().map(each -> each.getEventsCount()).toList());
    assertEquals(asked.get(0).getMode(), asked.get(2).getMode());
  }

  @Test
  void aDefiniteErrorIsNotTriedAgain() {
    scripted.publish = request -> {
      throw refusal(Status.Code.INVALID_ARGUMENT, "INVALID_ARGUMENT");
    };
    var failed = assertThrows(CompletionException.class, () -> broker.publish(EVENT).join());
    assertTrue(EventBrokerException.of(failed).isDefinite());
    assertEquals(1, scripted.published.size());
  }

  @Test
  void anAnswerMayBeLargerThanGrpcTakesByDefault() {
    var large = stored("x".repeat(5 << 20));
    scripted.publish = request -> PublishResponse.newBuilder().addResults(large).build();
    assertEquals(large, broker.publish(EVENT).join());
  }

  private static EventBrokerException failedByDeadline(EventBroker broker) {
    var timer = Executors.newSingleThreadScheduledExecutor();
    try (var context = Context.current().withDeadlineAfter(1, TimeUnit.SECONDS, timer)) {
      return EventBrokerException.of(
          assertThrows(CompletionException.class, context.wrap(() -> broker.publish(EVENT).join())::call));
    } finally {
      timer.shutdownNow();
    }
  }

  @Test
  void theDeadlineOfTheContextEndsTheTries() {
    try (var patient = EventBroker.connect(scripted.target, patience(Duration.ofHours(1)))) {
      assertTrue(failedByDeadline(patient).isRetryable());
    }
  }

  @Test
  void aRefusalIsNotDefiniteAfterATryThatMayHaveStored() {
    scripted.publish = request -> {
      throw scripted.published.size() == 1
          ? Status.UNAVAILABLE.asRuntimeException() : refusal(Status.Code.RESOURCE_EXHAUSTED, "OVERLOADED");
    };
    assertFalse(failedByDeadline(broker).isDefinite());
  }

  @Test
  void aCancelledContextEndsTheTries() throws Exception {
    try (var context = Context.current().withCancellation()) {
      var publishing = context.call(() -> broker.publish(EVENT));
      scripted.published.take();
      context.cancel(null);
      assertThrows(CompletionException.class, publishing::join);
    }
  }

  @Test
  void whatWaitsForItsNextTryFailsWhenTheClientIsClosed() throws InterruptedException {
    var publishing = broker.publish(EVENT);
    scripted.published.take();
    broker.close();
    var failed = assertThrows(CompletionException.class, publishing::join);
    assertTrue(EventBrokerException.of(failed).isRetryable(), failed::toString);
  }

  @Test
  void connectGivesUpWhenItsPatienceIsOver() throws IOException {
    int closed;
    try (var socket = new ServerSocket(0)) {
      closed = socket.getLocalPort();
    }
    var target = "127.0.0.1:" + closed;
    var failed = assertThrows(
        EventBrokerException.class, () -> EventBroker.connect(target, patience(Duration.ofMillis(100))));
    assertTrue(failed.isRetryable());
    assertFalse(failed.isDefinite());
  }
}
