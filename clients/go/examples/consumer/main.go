// Command consumer handles what happens to users, until it is interrupted.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"eventbroker.io/eventbroker"
	eventsv1 "eventbroker.io/eventbroker/events/v1"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := eventbroker.Connect(ctx, target(), eventbroker.WithLogger(slog.Default()))
	if err != nil {
		return err
	}
	defer client.Close()

	mailer := eventbroker.SubscribeOptions{Group: "mailer", TenantID: "acme", EventTypes: []string{"user.*"}}
	err = client.Consume(ctx, mailer, handle)
	fmt.Println("drained")
	return err
}

func handle(ctx context.Context, d *eventbroker.Delivery) error {
	data, err := d.Event.GetMessage().UnmarshalNew()
	if err != nil {
		return eventbroker.Reject(err) // no attempt can succeed: a dead letter
	}
	switch data := data.(type) {
	case *eventsv1.UserCreated:
		fmt.Println("welcome", data.FirstName) // an error here would be a retry
	case *eventsv1.UserStatusChanged:
		fmt.Println("now", data.NewStatus)
	}
	return nil
}

func target() string {
	if url := os.Getenv("EVENTBROKER_URL"); url != "" {
		return url
	}
	return "127.0.0.1:50051"
}
