// Command publisher publishes that a user was created, and then that its status changed.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"eventbroker.io/eventbroker"
	eventsv1 "eventbroker.io/eventbroker/events/v1"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := eventbroker.Connect(ctx, target())
	if err != nil {
		return err
	}
	defer client.Close()

	user := "u-" + eventbroker.NewID()
	created, err := eventbroker.UserCreated("acme", user, &eventsv1.UserCreated{
		Email: "ada@example.com", Username: "ada", FirstName: "Ada", LastName: "Lovelace", Status: "active",
	})
	if err != nil {
		return err
	}
	result, err := client.Publish(ctx, created)
	if err != nil {
		return err
	}
	fmt.Printf("%s is at position %d\n", created.EventType, result.Position)

	locked, err := eventbroker.UserStatusChanged("acme", user, &eventsv1.UserStatusChanged{
		OldStatus: "active", NewStatus: "locked", Reason: "asked for",
	})
	if err != nil {
		return err
	}
	_, err = client.PublishMany(ctx, []*eventbroker.Event{locked},
		eventbroker.Expect(eventbroker.AtVersion("User", user, result.AggregateVersion)))
	var refused *eventbroker.Error
	if errors.As(err, &refused) && refused.Reason == "VERSION_CONFLICT" {
		fmt.Println("somebody else was faster:", refused.Conflicts)
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Println(locked.EventType, "is stored")
	return nil
}

func target() string {
	if url := os.Getenv("EVENTBROKER_URL"); url != "" {
		return url
	}
	return "127.0.0.1:50051"
}
