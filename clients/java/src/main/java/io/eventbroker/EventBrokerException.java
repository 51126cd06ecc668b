package io.eventbroker;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RetryInfo;
import io.eventbroker.v1.PublishResult;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;

/**
 * Why the broker did not do what was asked, or that it could not be reached. Every future of this package that fails by
 * the broker fails with one: it is the cause of what {@code join} and {@code get} throw. {@link #of} makes it of the
 * exceptions of the generated stubs.
 */
public final class EventBrokerException extends RuntimeException {
  /** The reason that ends a subscription whose consumer id was taken over by another stream. */
  public static final String REPLACED = "REPLACED";

  /** The reason that ends a subscription whose group was deleted. */
  public static final String GROUP_DELETED = "GROUP_DELETED";

  private static final long serialVersionUID = 1L;

  private final Status.Code code;
  private final String reason;
  private final transient Map<String, String> metadata;
  private final transient List<Violation> violations;
  private final transient List<Conflict> conflicts;
  private final Duration retryAfter;
  private final boolean maybeDone;
  private final transient List<PublishResult> results;

  /**
   * A field that breaks a rule.
   *
   * @param field its path in the request, such as "events[3].aggregate_id"
   * @param rule what it breaks
   */
  public record Violation(String field, String rule) {}

  /**
   * An aggregate that was not as expected.
   *
   * @param aggregate its type and id, such as "User/u1"
   * @param description what was expected, and the actual version
   */
  public record Conflict(String aggregate, String description) {}

  private EventBrokerException(
      Status.Code code,
      String message,
      Details details,
      List<PublishResult> results,
      Throwable cause) {
    super(message, cause);
    this.code = code;
    this.reason = details.reason;
    this.metadata = Map.copyOf(details.metadata);
    this.violations = List.copyOf(details.violations);
    this.conflicts = List.copyOf(details.conflicts);
    this.retryAfter = details.retryAfter;
    this.maybeDone = details.maybeDone;
    this.results = List.copyOf(results);
  }

  /** What came with a status. */
  private static final class Details {
    String reason = "";
    Map<String, String> metadata = Map.of();
    List<Violation> violations = new ArrayList<>();
    List<Conflict> conflicts = new ArrayList<>();
    Duration retryAfter = Duration.ZERO;
    boolean maybeDone; // by a try before

    static Details of(Throwable thrown) {
      var made = new Details();
      var said = StatusProto.fromThrowable(thrown);
      try {
        for (Any detail : said == null ? List.<Any>of() : said.getDetailsList()) {
          made.add(detail);
        }
      } catch (InvalidProtocolBufferException broken) {
        thrown.addSuppressed(broken); // what came with it stays, without what is broken
      }
      return made;
    }

    private void add(Any detail) throws InvalidProtocolBufferException {
      if (detail.is(ErrorInfo.class)) {
        var info = detail.unpack(ErrorInfo.class);
        if (info.getDomain().equals("eventbroker")) {
          reason = info.getReason();
          metadata = info.getMetadataMap();
        }
      } else if (detail.is(BadRequest.class)) {
        for (var each : detail.unpack(BadRequest.class).getFieldViolationsList()) {
          violations.add(new Violation(each.getField(), each.getDescription()));
        }
      } else if (detail.is(PreconditionFailure.class)) {
        for (var each : detail.unpack(PreconditionFailure.class).getViolationsList()) {
          conflicts.add(new Conflict(each.getSubject(), each.getDescription()));
        }
      } else if (detail.is(RetryInfo.class)) {
        var delay = detail.unpack(RetryInfo.class).getRetryDelay();
        retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
      }
    }
  }

  /** What an exception of a call means. One that does not come from gRPC is the cause of one with code UNKNOWN. */
  public static EventBrokerException of(Throwable thrown) {
    if (thrown instanceof EventBrokerException already) {
      return already;
    }
    if ((thrown instanceof CompletionException || thrown instanceof ExecutionException) && thrown.getCause() != null) {
      return of(thrown.getCause());
    }
    if (thrown instanceof StatusRuntimeException || thrown instanceof StatusException) {
      var status = Status.fromThrowable(thrown);
      var message = status.getDescription() == null ? status.getCode().name() : status.getDescription();
      return new EventBrokerException(status.getCode(), message, Details.of(thrown), List.of(), thrown);
    }
    return new EventBrokerException(Status.Code.UNKNOWN, String.valueOf(thrown), new Details(), List.of(), thrown);
  }

  static EventBrokerException unavailable(String message) {
    return new EventBrokerException(Status.Code.UNAVAILABLE, message, new Details(), List.of(), null);
  }

  /** A subscription that is over. */
  static EventBrokerException ended(String reason, String message) {
    var details = new Details();
    details.reason = reason;
    return new EventBrokerException(Status.Code.ABORTED, message, details, List.of(), null);
  }

  EventBrokerException withResults(List<PublishResult> results) {
    return new EventBrokerException(code, super.getMessage(), details(), results, getCause());
  }

  /** The same after a try whose outcome is not known: what refuses before the broker looks at it proves nothing. */
  EventBrokerException afterUnknown() {
    return switch (code) {
      case RESOURCE_EXHAUSTED, UNAUTHENTICATED, PERMISSION_DENIED -> {
        var details = details();
        details.maybeDone = true;
        yield new EventBrokerException(code, super.getMessage(), details, results, getCause());
      }
      default -> this;
    };
  }

  /** Takes a part off the paths of fields that the caller has not written. */
  EventBrokerException withoutPrefix(String prefix) {
    var details = details();
    details.violations = new ArrayList<>();
    for (var each : violations) {
      var field = each.field().startsWith(prefix) ? each.field().substring(prefix.length()) : each.field();
      details.violations.add(new Violation(field, each.rule()));
    }
    return new EventBrokerException(code, super.getMessage(), details, results, getCause());
  }

  private Details details() {
    var details = new Details();
    details.reason = reason;
    details.metadata = metadata;
    details.violations = violations;
    details.conflicts = conflicts;
    details.retryAfter = retryAfter;
    details.maybeDone = maybeDone;
    return details;
  }

  @Override
  public String getMessage() {
    return (reason.isEmpty() ? code.name() : reason) + ": " + super.getMessage();
  }

  /** The status code of gRPC. */
  public Status.Code code() {
    return code;
  }

  /** The broker's stable name for the error, such as "EVENT_ID_REUSED". Empty: it does not come from the broker. */
  public String reason() {
    return reason;
  }

  /** The particulars of the reason. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** The fields that break a rule, with INVALID_ARGUMENT. */
  public List<Violation> violations() {
    return violations;
  }

  /** The expectations that did not hold, with VERSION_CONFLICT. */
  public List<Conflict> conflicts() {
    return conflicts;
  }

  /** How long to wait before the next try at least, if the broker said so. */
  public Duration retryAfter() {
    return retryAfter;
  }

  /** Of {@link EventBroker#publishPerEvent}: those that came. What is not known is refused with code UNAVAILABLE. */
  public List<PublishResult> results() {
    return results;
  }

  /**
   * Whether the same call may succeed later. Unless {@link #isDefinite} the call may have done its work, too: all calls
   * of this package can be repeated.
   */
  public boolean isRetryable() {
    if (!reason.isEmpty()) {
      return code == Status.Code.UNAVAILABLE || code == Status.Code.RESOURCE_EXHAUSTED;
    }
    return switch (code) {
      case UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, INTERNAL, UNKNOWN -> true;
      default -> false;
    };
  }

  /** Whether the broker refused, and nothing was done, also not by the tries before. */
  public boolean isDefinite() {
    return !reason.isEmpty() && code != Status.Code.UNAVAILABLE && !maybeDone;
  }
}
