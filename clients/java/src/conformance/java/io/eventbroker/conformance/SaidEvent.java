package io.eventbroker.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import io.eventbroker.Events;
import io.eventbroker.events.v1.PermissionChecked;
import io.eventbroker.events.v1.RoleAssigned;
import io.eventbroker.events.v1.SessionRevoked;
import io.eventbroker.events.v1.UserCreated;
import io.eventbroker.events.v1.UserLoggedIn;
import io.eventbroker.events.v1.UserStatusChanged;
import io.eventbroker.v1.Event;
import io.eventbroker.v1.Metadata;
import java.time.Instant;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/** An event as a case says it. A field that is null is left out of the event; one that is missing has a default. */
record SaidEvent(
    String eventId, String eventType, String eventVersion, String aggregateId, String aggregateType, String timestamp,
    String userId, String sessionId, String requestId, String correlationId, String json, Packed message, Packed binary,
    Fill fill, Map<String, JsonNode> typed, About metadata) {

  private static final Map<String, String> DEFAULTS = Map.of(
      "event_type", "user.created", "aggregate_type", "User", "aggregate_id", "u1",
      "timestamp", "2026-01-02T03:04:05.678901Z");

  private static final List<Class<? extends Message>> TYPES = List.of(
      UserCreated.class, UserStatusChanged.class, UserLoggedIn.class, SessionRevoked.class, RoleAssigned.class,
      PermissionChecked.class);

  record Packed(String typeUrl, String contentType, byte[] base64) {}

  record Fill(String form, int bytes) {}

  record About(
      String source, String causedBy, Long entityVersion, List<String> tags, Map<String, String> attributes) {

    Metadata metadata() {
      return Metadata.newBuilder()
          .setSource(text(source))
          .setCausedBy(text(causedBy))
          .setEntityVersion(entityVersion == null ? 0 : entityVersion)
          .addAllTags(Play.orNone(tags))
          .putAllAttributes(attributes == null ? Map.of() : attributes)
          .build();
    }
  }

  /** Makes the event. */
  static Event event(ObjectNode said, String tenant) throws InvalidProtocolBufferException {
    var whole = said.deepCopy();
    DEFAULTS.forEach((name, value) -> {
      if (!whole.has(name)) {
        whole.put(name, value);
      }
    });
    if (!whole.has("json")) {
      whole.put("json", "{}");
    }
    return Case.read(whole, SaidEvent.class).event(tenant);
  }

  private Event event(String tenant) throws InvalidProtocolBufferException {
    Event.Builder event;
    if (typed != null) {
      event = typed(tenant).toBuilder().setEventId(text(eventId)).clearTimestamp();
    } else {
      event = Event.newBuilder()
          .setEventId(text(eventId))
          .setEventType(text(eventType))
          .setEventVersion(text(eventVersion))
          .setAggregateId(text(aggregateId))
          .setAggregateType(text(aggregateType))
          .setTenantId(tenant)
          .setUserId(text(userId))
          .setSessionId(text(sessionId))
          .setRequestId(text(requestId))
          .setCorrelationId(text(correlationId));
      fill(event);
    }
    if (timestamp != null) {
      event.setTimestamp(Events.timestamp(Instant.parse(timestamp)));
    }
    return metadata == null ? event.build() : event.setMetadata(metadata.metadata()).build();
  }

  private static String text(String value) {
    return value == null ? "" : value;
  }

  private void fill(Event.Builder event) {
    if (message != null) {
      var content = ByteString.copyFrom(message.base64);
      event.setMessage(Any.newBuilder().setTypeUrl(message.typeUrl).setValue(content));
    } else if (binary != null) {
      event.setBinary(Events.binary(text(binary.contentType), binary.base64));
    } else if (fill != null && fill.form.equals("json")) {
      event.setJson('"' + "x".repeat(fill.bytes - 2) + '"');
    } else if (fill != null) {
      var bytes = new byte[fill.bytes];
      for (int number = 0; number < bytes.length; number++) {
        bytes[number] = (byte) (number % 251);
      }
      event.setBinary(Events.binary("application/octet-stream", bytes));
    } else if (json != null) {
      event.setJson(json);
    }
  }

  /** Makes an event by the constructor for its data. */
  private Event typed(String tenant) throws InvalidProtocolBufferException {
    var name = typed.keySet().iterator().next();
    var fields = typed.get(name).toString();
    return switch (name) {
      case "UserCreated" ->
          Events.userCreated(tenant, aggregateId, merged(fields, UserCreated.newBuilder()).build());
      case "UserStatusChanged" ->
          Events.userStatusChanged(tenant, aggregateId, merged(fields, UserStatusChanged.newBuilder()).build());
      case "UserLoggedIn" ->
          Events.userLoggedIn(tenant, aggregateId, merged(fields, UserLoggedIn.newBuilder()).build());
      case "SessionRevoked" ->
          Events.sessionRevoked(tenant, aggregateId, merged(fields, SessionRevoked.newBuilder()).build());
      case "RoleAssigned" ->
          Events.roleAssigned(tenant, aggregateId, merged(fields, RoleAssigned.newBuilder()).build());
      case "PermissionChecked" ->
          Events.permissionChecked(tenant, aggregateId, merged(fields, PermissionChecked.newBuilder()).build());
      default -> throw new AssertionError("there is no typed event " + name);
    };
  }

  private static <B extends Message.Builder> B merged(String fields, B into) throws InvalidProtocolBufferException {
    JsonFormat.parser().merge(fields, into);
    return into;
  }

  /** Fails unless a delivered event is the one that was published. */
  static void asPublished(Event delivered, Event published) throws InvalidProtocolBufferException {
    var set = delivered.getPosition() >= 1 && delivered.getAggregateVersion() >= 1 && delivered.hasRecordTime();
    Play.check(set, delivered.getEventId() + " lacks what the broker sets");
    var got = delivered.toBuilder().clearPosition().clearAggregateVersion().clearRecordTime();
    var wanted = published.toBuilder();
    if (published.getEventVersion().isEmpty()) {
      wanted.setEventVersion("v1.0");
    }
    for (var event : List.of(got, wanted)) {
      if (event.getMetadata().getSerializedSize() == 0) {
        event.clearMetadata();
      }
    }
    Play.check(got.build().equals(wanted.build()),
        delivered.getEventId() + " came as " + shortened(got) + ", not as " + shortened(wanted));
    for (var type : TYPES) {
      if (published.getMessage().is(type)) {
        Play.same("data", delivered.getMessage().unpack(type), published.getMessage().unpack(type));
      }
    }
  }

  private static String shortened(Event.Builder event) {
    var text = event.toString();
    return text.substring(0, Math.min(text.length(), 500));
  }
}
