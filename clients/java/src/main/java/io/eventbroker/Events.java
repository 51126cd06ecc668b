package io.eventbroker;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.Timestamp;
import io.eventbroker.events.v1.PermissionChecked;
import io.eventbroker.events.v1.RoleAssigned;
import io.eventbroker.events.v1.SessionRevoked;
import io.eventbroker.events.v1.UserCreated;
import io.eventbroker.events.v1.UserLoggedIn;
import io.eventbroker.events.v1.UserStatusChanged;
import io.eventbroker.v1.Binary;
import io.eventbroker.v1.Event;
import java.security.SecureRandom;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.UUID;

/** Makes events. */
public final class Events {
  private static final SecureRandom RANDOM = new SecureRandom();

  private Events() {}

  /**
   * An event that happens now, with an id of its own. Its data is to be set: {@code setJson}, {@code setMessage} with
   * what {@link #message} makes, or {@code setBinary} with what {@link #binary} makes.
   */
  public static Event.Builder newEvent(String tenantId, String eventType, String aggregateType, String aggregateId) {
    return Event.newBuilder()
        .setEventId(newId())
        .setEventType(eventType)
        .setAggregateType(aggregateType)
        .setAggregateId(aggregateId)
        .setTenantId(tenantId)
        .setTimestamp(timestamp(Instant.now().truncatedTo(ChronoUnit.MICROS)));
  }

  /** Typed data for an event. Read it with {@code event.getMessage().unpack(...)}. */
  public static Any message(Message data) {
    return Any.pack(data);
  }

  /** Data for an event of any content type. */
  public static Binary binary(String contentType, byte[] content) {
    return Binary.newBuilder().setContentType(contentType).setContent(ByteString.copyFrom(content)).build();
  }

  /** The event "user.created". */
  public static Event userCreated(String tenantId, String userId, UserCreated data) {
    return typed(tenantId, "user.created", "User", userId, data);
  }

  /** The event "user.status_changed". */
  public static Event userStatusChanged(String tenantId, String userId, UserStatusChanged data) {
    return typed(tenantId, "user.status_changed", "User", userId, data);
  }

  /** The event "user.login". */
  public static Event userLoggedIn(String tenantId, String userId, UserLoggedIn data) {
    return typed(tenantId, "user.login", "Session", userId, data);
  }

  /** The event "session.revoked". */
  public static Event sessionRevoked(String tenantId, String sessionId, SessionRevoked data) {
    return typed(tenantId, "session.revoked", "Session", sessionId, data);
  }

  /** The event "role.assigned". */
  public static Event roleAssigned(String tenantId, String userId, RoleAssigned data) {
    return typed(tenantId, "role.assigned", "UserRole", userId, data);
  }

  /** The event "permission.checked". */
  public static Event permissionChecked(String tenantId, String userId, PermissionChecked data) {
    return typed(tenantId, "permission.checked", "Permission", userId, data);
  }

  private static Event typed(String tenantId, String type, String aggregateType, String aggregateId, Message data) {
    return newEvent(tenantId, type, aggregateType, aggregateId).setMessage(message(data)).build();
  }

  /** A moment as events have it. */
  public static Timestamp timestamp(Instant moment) {
    return Timestamp.newBuilder().setSeconds(moment.getEpochSecond()).setNanos(moment.getNano()).build();
  }

  /** An event id: a UUIDv7, which sorts by time. */
  public static String newId() {
    long high = System.currentTimeMillis() << 16 | 0x7000 | RANDOM.nextInt(0x1000);
    long low = RANDOM.nextLong() >>> 2 | Long.MIN_VALUE;
    return new UUID(high, low).toString();
  }
}
