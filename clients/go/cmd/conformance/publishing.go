package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"eventbroker.io/eventbroker"
	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// stored is where an event went.
type stored struct{ position, version int64 }

func (p *play) publish(arguments json.RawMessage) error {
	var say struct {
		Events       []said
		Mode         string
		Expectations []struct {
			AggregateType string `json:"aggregate_type"`
			AggregateID   string `json:"aggregate_id"`
			Version       *string
			Exists        *bool
		}
		Outcomes []string
		Versions []string
		As       string
		SameAs   string `json:"same_as"`
		Refused  map[string]struct {
			Reason string
			Fields []string
		}
		Error *refusal
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	events := make([]*eventbroker.Event, len(say.Events))
	for number, each := range say.Events {
		var err error
		if events[number], err = each.event(p.tenant); err != nil {
			return err
		}
	}
	var options []eventbroker.PublishOption
	if say.Mode == "PER_EVENT" {
		options = append(options, eventbroker.PerEvent())
	}
	for _, each := range say.Expectations {
		if each.Version == nil {
			options = append(options, eventbroker.Expect(eventbroker.Exists(each.AggregateType, each.AggregateID, *each.Exists)))
			continue
		}
		version, err := strconv.ParseInt(*each.Version, 10, 64)
		if err != nil {
			return err
		}
		options = append(options, eventbroker.Expect(eventbroker.AtVersion(each.AggregateType, each.AggregateID, version)))
	}
	results, err := p.client.PublishMany(p.ctx, events, options...)
	if over := say.Error.check(err); over != nil || err != nil {
		return over
	}
	var outcomes, versions []string
	var places []stored
	for number, result := range results {
		outcome := strings.TrimPrefix(result.Outcome.String(), "PUBLISH_OUTCOME_")
		outcomes = append(outcomes, outcome)
		versions = append(versions, strconv.FormatInt(result.AggregateVersion, 10))
		places = append(places, stored{result.Position, result.AggregateVersion})
		if outcome == "REFUSED" {
			why := say.Refused[result.EventId]
			if result.Error.GetReason() != why.Reason {
				return fmt.Errorf("%s was refused for %v", result.EventId, result.Error)
			}
			var fields []string
			for _, violation := range result.Error.Violations {
				fields = append(fields, violation.Field)
			}
			if err := same("fields", fields, why.Fields); err != nil {
				return err
			}
			continue
		}
		if p.published[result.EventId] == nil {
			p.published[result.EventId] = events[number]
		}
		p.position = max(p.position, result.Position)
	}
	if say.Outcomes == nil {
		say.Outcomes = slices.Repeat([]string{"STORED"}, len(events))
	}
	if err := same("outcomes", outcomes, say.Outcomes); err != nil {
		return err
	}
	if say.Versions != nil {
		if err := same("versions", versions, say.Versions); err != nil {
			return err
		}
	}
	if say.SameAs != "" {
		return same("places", places, p.results[say.SameAs])
	}
	p.results[say.As] = places
	return nil
}

func (p *play) createGroup(arguments json.RawMessage) error {
	var say struct {
		Group          string
		EventTypes     []string `json:"event_types"`
		AckDeadline    float64  `json:"ack_deadline"`
		InitialBackoff float64  `json:"initial_backoff"`
		MaximumBackoff float64  `json:"maximum_backoff"`
		MaxAttempts    int32    `json:"max_attempts"`
		Error          *refusal
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	ctx, cancel := p.within(0)
	defer cancel()
	_, err := p.client.Groups.CreateGroup(ctx, &eventbrokerv1.CreateGroupRequest{
		Name: say.Group, TenantId: p.tenant, EventTypes: say.EventTypes, AckDeadline: seconds(say.AckDeadline),
		RetryPolicy: &eventbrokerv1.RetryPolicy{
			InitialBackoff: seconds(say.InitialBackoff), MaximumBackoff: seconds(say.MaximumBackoff),
			MaxAttempts: say.MaxAttempts,
		},
	})
	return say.Error.check(err)
}

func seconds(number float64) *durationpb.Duration {
	if number == 0 {
		return nil
	}
	return durationpb.New(duration(number))
}

// refusal is the error that a step expects; nil: none.
type refusal struct {
	Code      string
	Reason    string
	Retryable bool
	Fields    []string
	Metadata  map[string]string
	Conflicts []string
}

// names of the codes that are no single word in Go.
var codeNames = map[codes.Code]string{
	codes.InvalidArgument: "INVALID_ARGUMENT", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED",
}

func (r *refusal) check(err error) error {
	if r == nil || err == nil {
		if r != nil {
			return fmt.Errorf("no error, where %s was to come", r.Reason)
		}
		return err
	}
	var got *eventbroker.Error
	if !errors.As(err, &got) {
		return fmt.Errorf("not an error of the client: %w", err)
	}
	if codeNames[got.Code] != r.Code || got.Reason != r.Reason || got.Retryable() != r.Retryable {
		return fmt.Errorf("another error than %+v: code %v, reason %s, retryable %v", *r, got.Code, got.Reason, got.Retryable())
	}
	for name, value := range r.Metadata {
		if got.Metadata[name] != value {
			return fmt.Errorf("metadata is %v", got.Metadata)
		}
	}
	var fields, conflicts []string
	for _, violation := range got.Violations {
		fields = append(fields, violation.Field)
	}
	for _, conflict := range got.Conflicts {
		conflicts = append(conflicts, conflict.Aggregate)
	}
	slices.Sort(fields)
	return errors.Join(
		same("fields", fields, slices.Sorted(slices.Values(r.Fields))), same("conflicts", conflicts, r.Conflicts))
}

// settled waits until a group is done with everything that the case has published.
func (p *play) settled(arguments json.RawMessage) error {
	var say struct{ Group string }
	if err := decode(arguments, &say); err != nil {
		return err
	}
	return p.eventually(0, func(ctx context.Context) error {
		request := &eventbrokerv1.WaitForGroupRequest{
			Name: say.Group, TenantId: p.tenant, Position: p.position, Timeout: durationpb.New(duration(5)),
		}
		answer, err := p.client.Groups.WaitForGroup(ctx, request)
		if err == nil && !answer.Reached {
			return fmt.Errorf("settled up to %d of %d", answer.SettledPosition, p.position)
		}
		return err
	})
}
