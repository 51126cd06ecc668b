package eventbroker

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// PublishOption says more about a call of PublishMany.
type PublishOption func(*eventbrokerv1.PublishRequest)

// PerEvent has each event decided for itself: some may be refused, as their results tell, and the others stored.
func PerEvent() PublishOption {
	return func(r *eventbrokerv1.PublishRequest) { r.Mode = eventbrokerv1.PublishMode_PUBLISH_MODE_PER_EVENT }
}

// Expect has the events stored only if all of this holds; otherwise the error's reason is VERSION_CONFLICT.
func Expect(expectations ...*eventbrokerv1.AggregateExpectation) PublishOption {
	return func(r *eventbrokerv1.PublishRequest) { r.Expectations = append(r.Expectations, expectations...) }
}

// AtVersion expects that an aggregate is at exactly this version; 0: it has no event yet.
func AtVersion(aggregateType, aggregateID string, version int64) *eventbrokerv1.AggregateExpectation {
	return &eventbrokerv1.AggregateExpectation{
		AggregateType: aggregateType, AggregateId: aggregateID,
		Expected: &eventbrokerv1.AggregateExpectation_Version{Version: version},
	}
}

// Exists expects that an aggregate has at least one event, or none.
func Exists(aggregateType, aggregateID string, exists bool) *eventbrokerv1.AggregateExpectation {
	return &eventbrokerv1.AggregateExpectation{
		AggregateType: aggregateType, AggregateId: aggregateID,
		Expected: &eventbrokerv1.AggregateExpectation_Exists{Exists: exists},
	}
}

// Publish stores one event. As PublishMany.
func (c *Client) Publish(ctx context.Context, event *Event) (*eventbrokerv1.PublishResult, error) {
	results, err := c.PublishMany(ctx, []*Event{event})
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// PublishMany stores 1 to 1,000 events, all or none unless PerEvent says otherwise. Without an error they are committed
// and flushed.
//
// While the broker is away or its answer got lost, the same events are published again, with the same ids, until the
// context's deadline, or that of WithPatience: so each is stored once. An event that such a try has stored without our
// knowing is a duplicate then. After an *Error that is Definite nothing was stored. With PerEvent the results come also
// with an error: those whose outcome is not known are refused with code UNAVAILABLE.
func (c *Client) PublishMany(
	ctx context.Context, events []*Event, opts ...PublishOption,
) ([]*eventbrokerv1.PublishResult, error) {
	request := &eventbrokerv1.PublishRequest{Events: events}
	for _, opt := range opts {
		opt(request)
	}
	var results []*eventbrokerv1.PublishResult
	places := make([]int, len(events)) // of the events of the request
	for place := range places {
		places[place] = place
	}
	err := c.repeat(ctx, func(ctx context.Context) error {
		response, err := c.publisher.Publish(ctx, request)
		if err != nil {
			return err
		}
		if len(response.Results) != len(request.Events) {
			return fmt.Errorf("eventbroker: %d results for %d events", len(response.Results), len(request.Events))
		}
		if results == nil {
			results = make([]*eventbrokerv1.PublishResult, len(events))
		}
		var unknown []int
		for number, result := range response.Results {
			results[places[number]] = result
			if codes.Code(result.GetError().GetCode()) == codes.Unavailable {
				unknown = append(unknown, places[number])
			}
		}
		if len(unknown) == 0 {
			return nil
		}
		places = unknown
		request = &eventbrokerv1.PublishRequest{Mode: request.Mode}
		for _, place := range unknown {
			request.Events = append(request.Events, events[place])
		}
		return asError(status.Error(codes.Unavailable, results[unknown[0]].Error.Message))
	})
	return results, err
}
