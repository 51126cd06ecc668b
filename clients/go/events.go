package eventbroker

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventsv1 "eventbroker.io/eventbroker/events/v1"
	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// NewEvent makes an event that happens now, with an id of its own. Its data is to be set, as JSON, Message or Binary.
func NewEvent(tenantID, eventType, aggregateType, aggregateID string) *Event {
	return &Event{
		EventId:       NewID(),
		EventType:     eventType,
		AggregateType: aggregateType,
		AggregateId:   aggregateID,
		TenantId:      tenantID,
		Timestamp:     timestamppb.Now(),
	}
}

// JSON is data for an event: text that is kept byte for byte.
func JSON(text string) *eventbrokerv1.Event_Json { return &eventbrokerv1.Event_Json{Json: text} }

// Binary is data for an event of any content type.
func Binary(contentType string, content []byte) *eventbrokerv1.Event_Binary {
	return &eventbrokerv1.Event_Binary{Binary: &eventbrokerv1.Binary{ContentType: contentType, Content: content}}
}

// Message is typed data for an event. Read it with event.GetMessage().UnmarshalTo, or UnmarshalNew.
func Message(data proto.Message) (*eventbrokerv1.Event_Message, error) {
	packed, err := anypb.New(data)
	if err != nil {
		return nil, fmt.Errorf("eventbroker: data of an event: %w", err)
	}
	return &eventbrokerv1.Event_Message{Message: packed}, nil
}

// UserCreated makes the event "user.created".
func UserCreated(tenantID, userID string, data *eventsv1.UserCreated) (*Event, error) {
	return typed(NewEvent(tenantID, "user.created", "User", userID), data)
}

// UserStatusChanged makes the event "user.status_changed".
func UserStatusChanged(tenantID, userID string, data *eventsv1.UserStatusChanged) (*Event, error) {
	return typed(NewEvent(tenantID, "user.status_changed", "User", userID), data)
}

// UserLoggedIn makes the event "user.login".
func UserLoggedIn(tenantID, userID string, data *eventsv1.UserLoggedIn) (*Event, error) {
	return typed(NewEvent(tenantID, "user.login", "Session", userID), data)
}

// SessionRevoked makes the event "session.revoked".
func SessionRevoked(tenantID, sessionID string, data *eventsv1.SessionRevoked) (*Event, error) {
	return typed(NewEvent(tenantID, "session.revoked", "Session", sessionID), data)
}

// RoleAssigned makes the event "role.assigned".
func RoleAssigned(tenantID, userID string, data *eventsv1.RoleAssigned) (*Event, error) {
	return typed(NewEvent(tenantID, "role.assigned", "UserRole", userID), data)
}

// PermissionChecked makes the event "permission.checked".
func PermissionChecked(tenantID, userID string, data *eventsv1.PermissionChecked) (*Event, error) {
	return typed(NewEvent(tenantID, "permission.checked", "Permission", userID), data)
}

func typed(event *Event, data proto.Message) (*Event, error) {
	packed, err := Message(data)
	if err != nil {
		return nil, err
	}
	event.Data = packed
	return event, nil
}

// NewID makes an event id: a UUIDv7, which sorts by time.
func NewID() string {
	var id [16]byte
	rand.Read(id[6:]) // never fails
	now := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint16(id[:], uint16(now>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(now))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
