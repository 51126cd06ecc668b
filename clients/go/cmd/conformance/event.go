package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"eventbroker.io/eventbroker"
	eventsv1 "eventbroker.io/eventbroker/events/v1"
	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// said is an event as a case says it. A field that is null is left out of the event; one that is missing has a default.
type said struct {
	EventID       string                     `json:"event_id"`
	EventType     *string                    `json:"event_type"`
	EventVersion  string                     `json:"event_version"`
	AggregateID   *string                    `json:"aggregate_id"`
	AggregateType *string                    `json:"aggregate_type"`
	Timestamp     json.RawMessage            `json:"timestamp"`
	UserID        string                     `json:"user_id"`
	SessionID     string                     `json:"session_id"`
	RequestID     string                     `json:"request_id"`
	CorrelationID string                     `json:"correlation_id"`
	JSON          json.RawMessage            `json:"json"`
	Message       *packed                    `json:"message"`
	Binary        *packed                    `json:"binary"`
	Fill          *fill                      `json:"fill"`
	Typed         map[string]json.RawMessage `json:"typed"`
	Metadata      *struct {
		Source        string            `json:"source"`
		CausedBy      string            `json:"caused_by"`
		EntityVersion string            `json:"entity_version"`
		Tags          []string          `json:"tags"`
		Attributes    map[string]string `json:"attributes"`
	} `json:"metadata"`
}

type packed struct {
	TypeURL     string `json:"type_url"`
	ContentType string `json:"content_type"`
	Base64      string `json:"base64"`
}

type fill struct {
	Form  string `json:"form"`
	Bytes int    `json:"bytes"`
}

const (
	defaultTime = "2026-01-02T03:04:05.678901Z"
	null        = "null"
)

func or(value *string, otherwise string) string {
	if value == nil {
		return otherwise
	}
	return *value
}

// event makes the event that a case says.
func (s said) event(tenant string) (*eventbroker.Event, error) {
	event := &eventbroker.Event{
		EventId: s.EventID, EventType: or(s.EventType, "user.created"), EventVersion: s.EventVersion,
		AggregateId: or(s.AggregateID, "u1"), AggregateType: or(s.AggregateType, "User"), TenantId: tenant,
		UserId: s.UserID, SessionId: s.SessionID, RequestId: s.RequestID, CorrelationId: s.CorrelationID,
	}
	if s.Typed != nil {
		var err error
		if event, err = s.typed(tenant, event.AggregateId); err != nil {
			return nil, err
		}
		event.EventId = s.EventID
	}
	if text := string(s.Timestamp); text != null {
		moment := defaultTime
		if text != "" {
			if err := json.Unmarshal(s.Timestamp, &moment); err != nil {
				return nil, err
			}
		}
		parsed, err := time.Parse(time.RFC3339Nano, moment)
		if err != nil {
			return nil, err
		}
		event.Timestamp = timestamppb.New(parsed)
	}
	if m := s.Metadata; m != nil {
		event.Metadata = &eventbrokerv1.Metadata{
			Source: m.Source, CausedBy: m.CausedBy, Tags: m.Tags, Attributes: m.Attributes,
		}
		if m.EntityVersion != "" {
			var err error
			if event.Metadata.EntityVersion, err = strconv.ParseInt(m.EntityVersion, 10, 64); err != nil {
				return nil, err
			}
		}
	}
	return event, s.data(event)
}

func (s said) data(event *eventbroker.Event) error {
	switch {
	case s.Typed != nil || string(s.JSON) == null:
	case s.Message != nil:
		content, err := base64.StdEncoding.DecodeString(s.Message.Base64)
		event.Data = &eventbrokerv1.Event_Message{Message: &anypb.Any{TypeUrl: s.Message.TypeURL, Value: content}}
		return err
	case s.Binary != nil:
		content, err := base64.StdEncoding.DecodeString(s.Binary.Base64)
		event.Data = eventbroker.Binary(s.Binary.ContentType, content)
		return err
	case s.Fill != nil && s.Fill.Form == "json":
		event.Data = eventbroker.JSON(`"` + strings.Repeat("x", s.Fill.Bytes-2) + `"`)
	case s.Fill != nil:
		event.Data = eventbroker.Binary("application/octet-stream", filling(s.Fill.Bytes))
	case s.JSON != nil:
		var text string
		if err := json.Unmarshal(s.JSON, &text); err != nil {
			return err
		}
		event.Data = eventbroker.JSON(text)
	default:
		event.Data = eventbroker.JSON("{}")
	}
	return nil
}

// filling is the bytes 0, 1, ..., 250, 0, 1, ...
func filling(count int) []byte {
	var period [251]byte
	for number := range period {
		period[number] = byte(number)
	}
	return bytes.Repeat(period[:], count/len(period)+1)[:count]
}

// typed makes an event by the constructor for its data.
func (s said) typed(tenant, aggregate string) (*eventbroker.Event, error) {
	for name, fields := range s.Typed {
		switch name {
		case "UserCreated":
			return made(eventbroker.UserCreated, tenant, aggregate, fields, &eventsv1.UserCreated{})
		case "UserStatusChanged":
			return made(eventbroker.UserStatusChanged, tenant, aggregate, fields, &eventsv1.UserStatusChanged{})
		case "UserLoggedIn":
			return made(eventbroker.UserLoggedIn, tenant, aggregate, fields, &eventsv1.UserLoggedIn{})
		case "SessionRevoked":
			return made(eventbroker.SessionRevoked, tenant, aggregate, fields, &eventsv1.SessionRevoked{})
		case "RoleAssigned":
			return made(eventbroker.RoleAssigned, tenant, aggregate, fields, &eventsv1.RoleAssigned{})
		case "PermissionChecked":
			return made(eventbroker.PermissionChecked, tenant, aggregate, fields, &eventsv1.PermissionChecked{})
		}
	}
	return nil, fmt.Errorf("there is no typed event for %v", s.Typed)
}

func made[M proto.Message](
	constructor func(tenant, aggregate string, data M) (*eventbroker.Event, error),
	tenant, aggregate string, fields json.RawMessage, into M,
) (*eventbroker.Event, error) {
	if err := protojson.Unmarshal(fields, into); err != nil {
		return nil, err
	}
	return constructor(tenant, aggregate, into)
}

// asPublished fails unless a delivered event is the one that was published.
func asPublished(delivered, published *eventbroker.Event) error {
	got, want := proto.CloneOf(delivered), proto.CloneOf(published)
	if got.Position < 1 || got.AggregateVersion < 1 || got.RecordTime == nil {
		return fmt.Errorf("%s lacks what the broker sets", got.EventId)
	}
	got.Position, got.AggregateVersion, got.RecordTime = 0, 0, nil
	if want.EventVersion == "" {
		want.EventVersion = "v1.0"
	}
	for _, event := range []*eventbroker.Event{got, want} {
		if proto.Size(event.Metadata) == 0 {
			event.Metadata = nil
		}
	}
	if !proto.Equal(got, want) {
		return fmt.Errorf("%s came as %.500v, not as %.500v", want.EventId, got, want)
	}
	if typed := published.GetMessage(); strings.Contains(typed.GetTypeUrl(), "/eventbroker.events.v1.") {
		read, err := got.GetMessage().UnmarshalNew()
		if err != nil {
			return err
		}
		if wrote, err := typed.UnmarshalNew(); err != nil || !proto.Equal(read, wrote) {
			return fmt.Errorf("%s reads %v", want.EventId, read)
		}
	}
	return nil
}
