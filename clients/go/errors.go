package eventbroker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrReplaced ends a subscription whose consumer id was taken over by another stream.
var ErrReplaced = errors.New("eventbroker: another stream took over this consumer id")

// ErrGroupDeleted ends a subscription whose group was deleted.
var ErrGroupDeleted = errors.New("eventbroker: the group was deleted")

// ErrLost cancels the context of a handler whose delivery is over: its deadline ran out, its stream broke, or the group
// was moved. The event is, or will be, with another handler.
var ErrLost = errors.New("eventbroker: the delivery is over")

// Error is why the broker did not do what was asked, or that it could not be reached. Every error of a call, also of the
// generated clients in Client, is one; get it with errors.As.
type Error struct {
	// Code is the status code of gRPC.
	Code codes.Code
	// Reason is the broker's stable name for the error, such as "EVENT_ID_REUSED". Empty: it does not come from the broker.
	Reason string
	// Message is the same for people; its wording may change.
	Message string
	// Metadata has the particulars of the reason.
	Metadata map[string]string
	// Violations are the fields that break a rule, with INVALID_ARGUMENT.
	Violations []Violation
	// Conflicts are the expectations that did not hold, with VERSION_CONFLICT.
	Conflicts []Conflict
	// RetryAfter is how long to wait before the next try at least, if the broker said so.
	RetryAfter time.Duration

	status    *status.Status
	maybeDone bool // an earlier try may have done it, and this one did not look
}

// Violation is a field that breaks a rule.
type Violation struct {
	// Field is its path in the request, such as "events[3].aggregate_id".
	Field string
	// Rule is what it breaks.
	Rule string
}

// Conflict is an aggregate that was not as expected.
type Conflict struct {
	// Aggregate is its type and id, such as "User/u1".
	Aggregate string
	// Description tells what was expected, and the actual version.
	Description string
}

func (e *Error) Error() string {
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	return fmt.Sprintf("eventbroker: %s: %s", name, e.Message)
}

// GRPCStatus is the status that the error was made from, for status.FromError.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Unwrap lets errors.Is find context.DeadlineExceeded and context.Canceled.
func (e *Error) Unwrap() error {
	switch e.Code {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	}
	return nil
}

// Retryable tells whether the same call may succeed later. Unless Definite says that nothing was done, the call may have
// done its work, too: all calls of this package can be repeated.
func (e *Error) Retryable() bool {
	if e.Reason != "" {
		return e.Code == codes.Unavailable || e.Code == codes.ResourceExhausted
	}
	switch e.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown:
		return true
	}
	return false
}

// Definite tells that the broker refused, and nothing was done, also not by the tries before.
func (e *Error) Definite() bool { return e.Reason != "" && e.Code != codes.Unavailable && !e.maybeDone }

// afterUnknown is the error of a try when the outcome of one before is not known: refused at the door, it tells nothing
// of that one.
func afterUnknown(err error) error {
	var told *Error
	if !errors.As(err, &told) {
		return err
	}
	switch told.Code {
	case codes.ResourceExhausted, codes.Unauthenticated, codes.PermissionDenied:
		told.maybeDone = true
	}
	return err
}

// asError turns an error of gRPC into an *Error; others, such as io.EOF, stay what they are.
func asError(err error) error {
	if err == nil {
		return nil
	}
	var already *Error
	if errors.As(err, &already) {
		return err
	}
	said, ok := status.FromError(err)
	if !ok {
		return err
	}
	made := &Error{Code: said.Code(), Message: said.Message(), status: said}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == "eventbroker" {
				made.Reason, made.Metadata = detail.Reason, detail.Metadata
			}
		case *errdetails.BadRequest:
			for _, each := range detail.FieldViolations {
				made.Violations = append(made.Violations, Violation{each.Field, each.Description})
			}
		case *errdetails.PreconditionFailure:
			for _, each := range detail.Violations {
				made.Conflicts = append(made.Conflicts, Conflict{each.Subject, each.Description})
			}
		case *errdetails.RetryInfo:
			made.RetryAfter = detail.RetryDelay.AsDuration()
		}
	}
	return made
}

// retryable tells whether an error of this package is worth another try, and when at the earliest.
func retryable(err error) (bool, time.Duration) {
	var told *Error
	if errors.As(err, &told) {
		return told.Retryable(), told.RetryAfter
	}
	return false, 0
}

var errEndedEarly = asError(status.Error(codes.Unavailable, "the stream ended before it was open"))

// withoutPrefix takes a part off the paths of fields that the caller has not written.
func withoutPrefix(err error, prefix string) error {
	var told *Error
	if errors.As(err, &told) {
		for number, violation := range told.Violations {
			told.Violations[number].Field = strings.TrimPrefix(violation.Field, prefix)
		}
	}
	return err
}
