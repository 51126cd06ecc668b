package eventbroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

func ours(reason string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Domain: "eventbroker", Reason: reason, Metadata: map[string]string{"a": "b"}}
}

func TestWhatErrorsMean(t *testing.T) {
	for _, c := range []struct {
		code                codes.Code
		details             []protoadapt.MessageV1
		definite, retryable bool
	}{
		{code: codes.Unavailable, retryable: true},
		{code: codes.DeadlineExceeded, retryable: true},
		{code: codes.Internal, retryable: true},
		{code: codes.Unimplemented},
		{code: codes.ResourceExhausted}, // of gRPC: a message that is too large
		{codes.ResourceExhausted, of(ours("OVERLOADED")), true, true},
		{codes.Unavailable, of(ours("STORE_UNAVAILABLE")), false, true},
		{codes.Aborted, of(ours("VERSION_CONFLICT")), true, false},
		{codes.Internal, of(ours("INTERNAL")), true, false},
		{codes.Aborted, of(&errdetails.ErrorInfo{Domain: "a proxy", Reason: "X"}), false, false},
	} {
		said, err := status.New(c.code, "m").WithDetails(c.details...)
		if err != nil {
			t.Fatal(err)
		}
		var got *Error
		if !errors.As(asError(said.Err()), &got) || got.Definite() != c.definite || got.Retryable() != c.retryable {
			t.Errorf("%v: definite %v, retryable %v", c.code, got.Definite(), got.Retryable())
		}
	}
}

func of(detail protoadapt.MessageV1) []protoadapt.MessageV1 { return []protoadapt.MessageV1{detail} }

func TestDetailsBecomeFields(t *testing.T) {
	said, err := status.New(codes.InvalidArgument, "m").WithDetails(
		ours("R"),
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "f", Description: "d"}}},
		&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Subject: "User/u1", Description: "expected 0, actual 1"},
		}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)},
	)
	if err != nil {
		t.Fatal(err)
	}
	got := asError(said.Err()).(*Error)
	got.status = nil
	want := &Error{
		Code: codes.InvalidArgument, Reason: "R", Message: "m", Metadata: map[string]string{"a": "b"},
		Violations: []Violation{{"f", "d"}}, Conflicts: []Conflict{{"User/u1", "expected 0, actual 1"}},
		RetryAfter: time.Second,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestErrorsAreFoundThroughOthers(t *testing.T) {
	late := fmt.Errorf("told: %w", asError(status.Error(codes.DeadlineExceeded, "late")))
	if !errors.Is(late, context.DeadlineExceeded) || status.Code(late) != codes.DeadlineExceeded {
		t.Error(late)
	}
	if asError(io.EOF) != io.EOF || asError(nil) != nil {
		t.Error("what is no status became one")
	}
}

func TestTheBackOffIsJitteredAndBounded(t *testing.T) {
	var low, high bool
	for n := 1; n < 100; n++ {
		wait := backoff(n, time.Second)
		if most := min(mostBackoff, firstBackoff<<min(n-1, 10)); wait < time.Second || wait >= time.Second+most {
			t.Error(n, wait)
		}
		low = low || wait < time.Second+mostBackoff/2
		high = high || wait >= time.Second+mostBackoff/2
	}
	if !low || !high {
		t.Error("no jitter")
	}
}
