package eventbroker

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventsv1 "eventbroker.io/eventbroker/events/v1"
)

func TestIDsAreUniqueUUIDsThatSortByTime(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	var ids []string
	for range 5 {
		id := NewID()
		if !form.MatchString(id) {
			t.Error(id)
		}
		ids = append(ids, id)
		time.Sleep(2 * time.Millisecond)
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 5 {
		t.Error(ids)
	}
}

func TestATypedEventIsReadAsItWasMade(t *testing.T) {
	data := &eventsv1.SessionRevoked{UserId: "u1", AffectedSessions: []string{"s1", "s2"}}
	event, err := SessionRevoked("acme", "s1", data)
	if err != nil {
		t.Fatal(err)
	}
	read, err := event.GetMessage().UnmarshalNew()
	if err != nil || !proto.Equal(read, data) {
		t.Error(read, err)
	}
	if event.EventType != "session.revoked" || event.AggregateType != "Session" || event.AggregateId != "s1" ||
		event.TenantId != "acme" || event.EventId == "" || event.Timestamp == nil {
		t.Error(event)
	}
}
