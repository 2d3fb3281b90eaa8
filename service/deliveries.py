"""Webhooks over HTTP: what was sent of an edit's end, and sending it again."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from jobs.records import EditRecord
from jobs.webhooks import Attempt, Delivery, DeliveryStore, State
from service import auth, lookup, openapi
from service.problems import Problem

router = APIRouter(tags=["webhooks"])

_PROBLEMS = (*auth.PROBLEMS, "not-found", "expired", "quota-exceeded", "unavailable")


class DeliveryView(BaseModel):
    """One message, and its attempts."""

    id: str = Field(description="The `webhook-id` of every attempt.")
    url: str
    state: State = Field(
        description="pending until answered with 2xx (succeeded) or 410 (stopped), or tried for the last time (failed)."
    )
    next_at: datetime | None = Field(description="When it is tried next; null unless pending.")
    attempts: tuple[Attempt, ...] = Field(description="The last ones, the oldest first.")


class DeliveryList(BaseModel):
    data: list[DeliveryView] = Field(description="Empty where nothing was to be told, or not yet.")


@router.get(
    "/v1/edits/{edit_id}/deliveries",
    summary="Look at an edit's webhook",
    response_model=DeliveryList,
    responses=openapi.problem_responses(*_PROBLEMS),
)
async def list_deliveries(request: Request, edit_id: str, caller: auth.Reader) -> DeliveryList:
    """What was sent to `webhook_url`, what it answered, and when it is tried next."""
    await lookup.find(request, edit_id, caller)
    delivery = await lookup.in_thread(partial(_store(request).get, edit_id))
    return DeliveryList(data=[_view(delivery)] if delivery is not None else [])


@router.post(
    "/v1/edits/{edit_id}/redeliver",
    summary="Send an edit's webhook again",
    status_code=202,
    response_model=DeliveryList,
    responses={
        202: {"description": "It is sent now, and tried again as if for the first time."},
        **openapi.problem_responses(*_PROBLEMS, "invalid-parameter"),
    },
)
async def redeliver(request: Request, edit_id: str, caller: auth.Submitter) -> DeliveryList:
    """The same message with the same `webhook-id`, whether it has arrived before or not."""
    record = await lookup.find(request, edit_id, caller)
    delivery = await lookup.in_thread(partial(_store(request).redeliver, record))
    if delivery is None:
        raise _nothing_to_send(record)
    return DeliveryList(data=[_view(delivery)])


def _nothing_to_send(record: EditRecord) -> Problem:
    if record.submission.webhook is None:
        reason = "the edit was sent without a webhook_url"
    elif record.outcome is None:
        reason = "the edit has not ended; its webhook is sent when it does"
    else:
        reason = f"webhook_events of the edit leave out edit.{record.outcome.status}"
    return Problem("invalid-parameter", reason, [{"pointer": "/edit_id", "detail": reason}])


def _store(request: Request) -> DeliveryStore:
    intake = lookup.intake(request)
    return DeliveryStore(intake.repository, intake.settings.public_url)


def _view(delivery: Delivery) -> DeliveryView:
    return DeliveryView.model_validate(delivery, from_attributes=True)
