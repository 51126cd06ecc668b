package eventbroker

import (
	"context"

	"google.golang.org/grpc"
)

// Errors are translated once, at the door: so the generated clients return *Error, too.

func translateUnary(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	return asError(invoke(ctx, method, request, reply, conn, options...))
}

func translateStream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, asError(err)
	}
	return translated{stream}, nil
}

type translated struct{ grpc.ClientStream }

func (t translated) SendMsg(message any) error { return asError(t.ClientStream.SendMsg(message)) }

func (t translated) RecvMsg(message any) error { return asError(t.ClientStream.RecvMsg(message)) }
