from __future__ import annotations

from typing import Any

import pytest
from eventbroker.v1 import dead_letter_service_pb2 as pb
from eventbroker_server.domain.errors import TenantForbidden
from eventbroker_server.domain.principal import Principal, Role
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.dead_letters import DeadLetterServicer

ALL = pb.DeadLetterFilter(all=True)
REQUESTS = [
    ("ListDeadLetters", pb.ListDeadLettersRequest(group="billing", tenant_id="globex")),
    ("GetDeadLetter", pb.GetDeadLetterRequest(group="billing", tenant_id="globex", event_id="e1")),
    ("RedriveDeadLetters", pb.RedriveDeadLettersRequest(group="billing", tenant_id="globex", filter=ALL)),
    ("DeleteDeadLetters", pb.DeleteDeadLettersRequest(group="billing", tenant_id="globex", filter=ALL)),
]


@pytest.mark.parametrize(("method", "request_"), REQUESTS, ids=[method for method, _ in REQUESTS])
async def test_a_caller_of_a_tenant_is_refused_for_another_before_anything_is_asked(method: str, request_: Any) -> None:
    no_store: Any = None
    servicer = DeadLetterServicer(no_store, no_store, no_store)
    token = PRINCIPAL.set(Principal("caller", frozenset(Role), tenant="acme"))
    try:
        with pytest.raises(TenantForbidden):
            await getattr(servicer, method)(request_, None)
    finally:
        PRINCIPAL.reset(token)
