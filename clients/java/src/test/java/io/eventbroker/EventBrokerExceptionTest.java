package io.eventbroker;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletionException;
import org.junit.jupiter.api.Test;

class EventBrokerExceptionTest {
  private static ErrorInfo info(String domain, String reason) {
    return ErrorInfo.newBuilder().setDomain(domain).setReason(reason).putMetadata("a", "b").build();
  }

  private static StatusRuntimeException said(Status.Code code, Message... details) {
    var status = com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage("m");
    for (var detail : details) {
      status.addDetails(Any.pack(detail));
    }
    return StatusProto.toStatusRuntimeException(status.build());
  }

  private static void assertMeans(boolean definite, boolean retryable, Status.Code code, Message... details) {
    var got = EventBrokerException.of(said(code, details));
    assertEquals(List.of(definite, retryable), List.of(got.isDefinite(), got.isRetryable()), got::toString);
  }

  @Test
  void theCodeAndTheReasonTellWhatAnErrorMeans() {
    assertMeans(false, true, Status.Code.UNAVAILABLE);
    assertMeans(false, true, Status.Code.DEADLINE_EXCEEDED);
    assertMeans(false, true, Status.Code.INTERNAL);
    assertMeans(false, false, Status.Code.UNIMPLEMENTED);
    assertMeans(false, false, Status.Code.RESOURCE_EXHAUSTED); // of gRPC: a message that is too large
    assertMeans(true, true, Status.Code.RESOURCE_EXHAUSTED, info("eventbroker", "OVERLOADED"));
    assertMeans(false, true, Status.Code.UNAVAILABLE, info("eventbroker", "STORE_UNAVAILABLE"));
    assertMeans(true, false, Status.Code.ABORTED, info("eventbroker", "VERSION_CONFLICT"));
    assertMeans(true, false, Status.Code.INTERNAL, info("eventbroker", "INTERNAL"));
    assertMeans(false, false, Status.Code.ABORTED, info("a proxy", "X"));
  }

  @Test
  void detailsBecomeFields() {
    var field = BadRequest.FieldViolation.newBuilder().setField("f").setDescription("d");
    var conflict = PreconditionFailure.Violation.newBuilder().setSubject("User/u1").setDescription("expected 0");
    var got = EventBrokerException.of(said(Status.Code.INVALID_ARGUMENT,
        info("eventbroker", "R"),
        BadRequest.newBuilder().addFieldViolations(field).build(),
        PreconditionFailure.newBuilder().addViolations(conflict).build(),
        RetryInfo.newBuilder().setRetryDelay(Nack.duration(Duration.ofSeconds(1))).build()));
    assertEquals("R: m", got.getMessage());
    assertEquals(Map.of("a", "b"), got.metadata());
    assertEquals(List.of(new EventBrokerException.Violation("f", "d")), got.violations());
    assertEquals(List.of(new EventBrokerException.Conflict("User/u1", "expected 0")), got.conflicts());
    assertEquals(Duration.ofSeconds(1), got.retryAfter());
  }

  @Test
  void errorsAreFoundThroughOthers() {
    var told = EventBrokerException.of(said(Status.Code.ABORTED));
    assertSame(told, EventBrokerException.of(new CompletionException(new CompletionException(told))));
    var own = new IllegalStateException("no call");
    assertSame(own, EventBrokerException.of(new CompletionException(own)).getCause());
  }

  @Test
  void theBackOffIsJitteredAndBounded() {
    boolean low = false;
    boolean high = false;
    for (int n = 1; n < 100; n++) {
      long wait = Backoff.before(n, Duration.ofSeconds(1)).toMillis() - 1000;
      long most = Math.min(Backoff.MOST.toMillis(), Backoff.FIRST.toMillis() << Math.min(n - 1, 10));
      assertTrue(wait >= 0 && wait < most, "try " + n + " after " + wait + " ms");
      low |= wait < Backoff.MOST.toMillis() / 2;
      high |= wait >= Backoff.MOST.toMillis() / 2;
    }
    assertTrue(low && high, "no jitter");
  }
}
