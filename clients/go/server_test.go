package eventbroker

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// server answers as a test says, where a true broker can hardly be brought to; what it was asked is kept.
type server struct {
	eventbrokerv1.UnimplementedPublisherServiceServer
	eventbrokerv1.UnimplementedSubscriberServiceServer

	publish  func(*eventbrokerv1.PublishRequest) (*eventbrokerv1.PublishResponse, error)
	extend   func(*eventbrokerv1.ExtendDeadlineRequest) Outcome
	ack      func(*eventbrokerv1.AckRequest)
	deadline time.Duration

	lock      sync.Mutex
	published []*eventbrokerv1.PublishRequest
	acked     []*eventbrokerv1.AckRequest
	nacked    chan *eventbrokerv1.NackRequest
}

func start(t *testing.T, s *server) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.nacked = make(chan *eventbrokerv1.NackRequest, 100)
	serving := grpc.NewServer()
	eventbrokerv1.RegisterPublisherServiceServer(serving, s)
	eventbrokerv1.RegisterSubscriberServiceServer(serving, s)
	go serving.Serve(listener)
	t.Cleanup(serving.Stop)
	client, err := Connect(t.Context(), listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (s *server) Publish(
	_ context.Context, request *eventbrokerv1.PublishRequest,
) (*eventbrokerv1.PublishResponse, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.published = append(s.published, request)
	return s.publish(request)
}

// Consume hands out one event, and drains when it is told to.
func (s *server) Consume(stream eventbrokerv1.SubscriberService_ConsumeServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	opened := &eventbrokerv1.Opened{
		Group: "g", ConsumerId: "c", AckDeadline: durationpb.New(s.deadline),
		FlowControl: &eventbrokerv1.FlowControl{MaxUnsettledEvents: 10},
	}
	one := &eventbrokerv1.DeliveryBatch{Deliveries: []*eventbrokerv1.Delivery{
		{Event: NewEvent("acme", "user.created", "User", "u1"), AckId: "a1", Attempt: 1},
	}}
	for _, said := range []*eventbrokerv1.SubscribeResponse{
		{Response: &eventbrokerv1.SubscribeResponse_Opened{Opened: opened}},
		{Response: &eventbrokerv1.SubscribeResponse_Deliveries{Deliveries: one}},
	} {
		response := &eventbrokerv1.ConsumeResponse_Subscription{Subscription: said}
		if err := stream.Send(&eventbrokerv1.ConsumeResponse{Response: response}); err != nil {
			return err
		}
	}
	_, _ = stream.Recv() // a drain, or the end
	return nil
}

func results(count int) []*eventbrokerv1.SettleResult {
	all := make([]*eventbrokerv1.SettleResult, count)
	for number := range all {
		all[number] = &eventbrokerv1.SettleResult{Outcome: Done}
	}
	return all
}

func (s *server) Ack(_ context.Context, request *eventbrokerv1.AckRequest) (*eventbrokerv1.AckResponse, error) {
	s.ack(request)
	s.lock.Lock()
	defer s.lock.Unlock()
	s.acked = append(s.acked, request)
	return &eventbrokerv1.AckResponse{Results: results(len(request.AckIds))}, nil
}

func (s *server) Nack(_ context.Context, request *eventbrokerv1.NackRequest) (*eventbrokerv1.NackResponse, error) {
	s.nacked <- request
	return &eventbrokerv1.NackResponse{Results: results(len(request.AckIds))}, nil
}

func (s *server) ExtendDeadline(
	_ context.Context, request *eventbrokerv1.ExtendDeadlineRequest,
) (*eventbrokerv1.ExtendDeadlineResponse, error) {
	answer := results(len(request.AckIds))
	answer[0].Outcome = s.extend(request)
	return &eventbrokerv1.ExtendDeadlineResponse{Results: answer}, nil
}
