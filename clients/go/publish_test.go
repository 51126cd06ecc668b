package eventbroker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

func stored(id string) *eventbrokerv1.PublishResult {
	return &eventbrokerv1.PublishResult{EventId: id, Outcome: eventbrokerv1.PublishOutcome_PUBLISH_OUTCOME_STORED}
}

func refused(id string, code codes.Code) *eventbrokerv1.PublishResult {
	return &eventbrokerv1.PublishResult{
		EventId: id, Outcome: eventbrokerv1.PublishOutcome_PUBLISH_OUTCOME_REFUSED,
		Error: &eventbrokerv1.PublishError{Code: int32(code)},
	}
}

func events(ids ...string) []*Event {
	var all []*Event
	for _, id := range ids {
		all = append(all, &Event{EventId: id})
	}
	return all
}

func TestOnlyEventsOfUnknownOutcomeArePublishedAgain(t *testing.T) {
	s := &server{}
	s.publish = func(request *eventbrokerv1.PublishRequest) (*eventbrokerv1.PublishResponse, error) {
		response := &eventbrokerv1.PublishResponse{}
		for _, event := range request.Events {
			switch {
			case event.EventId == "bad":
				response.Results = append(response.Results, refused("bad", codes.InvalidArgument))
			case event.EventId == "late" && len(s.published) < 3:
				response.Results = append(response.Results, refused("late", codes.Unavailable))
			default:
				response.Results = append(response.Results, stored(event.EventId))
			}
		}
		return response, nil
	}
	got, err := start(t, s).PublishMany(t.Context(), events("bad", "late", "good"), PerEvent())
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Outcome != eventbrokerv1.PublishOutcome_PUBLISH_OUTCOME_REFUSED || got[1].EventId != "late" ||
		got[1].Error != nil || got[2].EventId != "good" {
		t.Error(got)
	}
	if len(s.published) != 3 || len(s.published[2].Events) != 1 || s.published[2].Mode != s.published[0].Mode {
		t.Error(s.published)
	}
}

func TestADefiniteErrorIsNotTriedAgain(t *testing.T) {
	s := &server{}
	s.publish = func(*eventbrokerv1.PublishRequest) (*eventbrokerv1.PublishResponse, error) {
		said, _ := status.New(codes.InvalidArgument, "no").WithDetails(
			&errdetails.ErrorInfo{Reason: "INVALID_ARGUMENT", Domain: "eventbroker"})
		return nil, said.Err()
	}
	_, err := start(t, s).Publish(t.Context(), events("e1")[0])
	var told *Error
	if !errors.As(err, &told) || !told.Definite() || len(s.published) != 1 {
		t.Error(err, len(s.published))
	}
}

func TestARefusalAtTheDoorTellsNothingOfATryBefore(t *testing.T) {
	for _, code := range []codes.Code{codes.PermissionDenied, codes.InvalidArgument} {
		s := &server{}
		s.publish = func(*eventbrokerv1.PublishRequest) (*eventbrokerv1.PublishResponse, error) {
			if len(s.published) == 1 {
				return nil, status.Error(codes.Unavailable, "the answer was lost")
			}
			said, _ := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Reason: "NO", Domain: "eventbroker"})
			return nil, said.Err()
		}
		_, err := start(t, s).Publish(t.Context(), events("e1")[0])
		var told *Error
		if !errors.As(err, &told) || told.Code != code || told.Definite() != (code == codes.InvalidArgument) {
			t.Error(code, err)
		}
	}
}

func TestAnAnswerMayBeLargerThanGRPCTakesByItself(t *testing.T) {
	s := &server{}
	s.publish = func(*eventbrokerv1.PublishRequest) (*eventbrokerv1.PublishResponse, error) {
		return &eventbrokerv1.PublishResponse{Results: []*eventbrokerv1.PublishResult{stored(strings.Repeat("x", 5<<20))}}, nil
	}
	if _, err := start(t, s).Publish(t.Context(), events("e1")[0]); err != nil {
		t.Error(err)
	}
}

func TestWhenTheTimeIsOverTheLastErrorIsTold(t *testing.T) {
	s := &server{}
	s.publish = func(*eventbrokerv1.PublishRequest) (*eventbrokerv1.PublishResponse, error) {
		return nil, status.Error(codes.Unavailable, "away")
	}
	client := start(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := client.Publish(ctx, events("e1")[0])
	var told *Error
	if !errors.As(err, &told) || told.Message != "away" || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if len(s.published) < 2 {
		t.Error("tried once")
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Connect(ctx, "127.0.0.1:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
