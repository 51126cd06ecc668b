// Package eventbroker is the client of the event broker: it publishes events, and hands events to handlers.
//
// It is thin: events, results and groups are the messages of the contract (package eventbrokerv1), and what it adds is
// what every service would have to write for itself: publishing again when the outcome is not known, staying subscribed,
// giving handlers the time that they need, and errors that tell what was wrong.
package eventbroker

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// Event is an event of the contract.
type Event = eventbrokerv1.Event

// Client is a connection to a broker. It is safe for concurrent use; a process needs one.
type Client struct {
	// Groups manages consumer groups; as generated, so nothing is tried again.
	Groups eventbrokerv1.GroupServiceClient
	// DeadLetters shows and redrives what groups have given up; as generated.
	DeadLetters eventbrokerv1.DeadLetterServiceClient
	// Events reads what is stored; as generated.
	Events eventbrokerv1.EventStoreServiceClient

	publisher  eventbrokerv1.PublisherServiceClient
	subscriber eventbrokerv1.SubscriberServiceClient
	conn       *grpc.ClientConn
	acks       acks
	options    options
}

type options struct {
	credentials credentials.TransportCredentials
	dial        []grpc.DialOption
	patience    time.Duration
	tryTimeout  time.Duration
	logger      *slog.Logger
}

const mostOfAnswer = 64 << 20 // bytes; gRPC's own bound leaves no room for what surrounds 4 MiB of events

// Option changes how a client connects.
type Option func(*options)

// WithTLS encrypts the connection; nil trusts the certificates that the machine trusts. Without it the connection is
// plain text.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.credentials = credentials.NewTLS(config) }
}

// WithPatience is how long a call is tried whose context has no deadline. Default 30 s.
func WithPatience(patience time.Duration) Option {
	return func(o *options) { o.patience = patience }
}

// WithTryTimeout is when a try that has no answer is given up, and the next one begins. Default 10 s.
func WithTryTimeout(timeout time.Duration) Option {
	return func(o *options) { o.tryTimeout = timeout }
}

// WithLogger has reconnects and failed handlers logged. By default nothing is.
func WithLogger(logger *slog.Logger) Option {
	return func(o *options) { o.logger = logger }
}

// WithDialOptions hands options on to gRPC, such as credentials for each call.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, dial...) }
}

// Connect connects to a broker, such as "127.0.0.1:50051", and waits until it answers or the context ends. Afterwards the
// connection is renewed by itself.
func Connect(ctx context.Context, target string, opts ...Option) (*Client, error) {
	o := options{
		credentials: insecure.NewCredentials(),
		patience:    30 * time.Second,
		tryTimeout:  10 * time.Second,
		logger:      slog.New(slog.DiscardHandler),
	}
	for _, opt := range opts {
		opt(&o)
	}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(o.credentials),
		grpc.WithChainUnaryInterceptor(translateUnary),
		grpc.WithChainStreamInterceptor(translateStream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostOfAnswer)),
		// The server takes pings every 10 s. A peer that is gone without a word is noticed within 30 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: firstBackoff, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, o.dial...)...)
	if err != nil {
		return nil, err
	}
	if err := ready(ctx, conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("eventbroker: no answer from %s: %w", target, err)
	}
	client := &Client{
		Groups:      eventbrokerv1.NewGroupServiceClient(conn),
		DeadLetters: eventbrokerv1.NewDeadLetterServiceClient(conn),
		Events:      eventbrokerv1.NewEventStoreServiceClient(conn),
		publisher:   eventbrokerv1.NewPublisherServiceClient(conn),
		subscriber:  eventbrokerv1.NewSubscriberServiceClient(conn),
		conn:        conn,
		options:     o,
	}
	client.acks.client = client
	return client, nil
}

func ready(ctx context.Context, conn *grpc.ClientConn) error {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return context.Cause(ctx)
		}
	}
}

// Close closes the connection. What subscriptions hold goes to other consumers.
func (c *Client) Close() error { return c.conn.Close() }
