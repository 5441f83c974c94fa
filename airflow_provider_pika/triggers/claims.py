"""The claims of one connection's poller, by which several triggerers release one waiter for each freed slot."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from airflow_provider_pika import compat
from airflow_provider_pika.api.claims import CLAIM_PREFIX, Claimant, line_digest, old_claims, put_off

log = logging.getLogger(__name__)

# A release waits no longer for the other triggerers than this.
CLAIM_TIME = 5.0
# Where claims fail, each triggerer goes by its own line for so long: Airflow's client repeats what fails, and the
# supervisor of all triggers waits for it.
ALONE_FOR = 300.0
# Old claims that one claim removes at most: more than it makes, and few enough to be no burden.
_PRUNED = 10
_DESCRIPTION = "A triggerer has released a Pika task for a freed slot. Read by the other triggerers, removed later on."


class Agreement(NamedTuple):
    """
    What came of asking the other triggerers.

    :param mine: slots that are this triggerer's to give now
    :param others: slots that others give
    :param put_off: seconds by which the next poll is better put off
    """

    mine: set[str]
    others: set[str]
    put_off: float = 0.0


class SlotClaims:
    """Agrees with the other triggerers on who releases for a slot; nothing here raises, or keeps a release waiting."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._runner = secrets.token_hex(4)
        self._claimants: dict[str, Claimant] = {}
        self._known: list[str] = []
        self._alone_until = 0.0
        self._has_failed = False

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to agree with: below Airflow 3.3, and for a while after a failure."""
        return not compat.has_variable_keys() or time.monotonic() < self._alone_until

    async def prepare(self) -> None:
        """Ask for the first time, which takes a process seconds, before anybody is to be released."""
        try:
            await self._keys(CLAIM_PREFIX)
            await self.prune()
        except Exception as error:  # noqa: BLE001 - whatever ails Airflow's API, each triggerer has a line of its own
            self._failed(error)

    async def agree(self, channel: str, slots: Sequence[str], waiting_since: Sequence[float]) -> Agreement:
        """
        Return which of these slots are whose.

        Those that are nobody's are left to others for a while, because their first waiter has waited longer.

        :param slots: free slots by name, those without a name being known here only
        :param waiting_since: since when those wait whose turn it is here, the first one first
        """
        named = [slot for slot in slots if slot]
        own = set(slots) - set(named)
        if not named or self.is_alone:
            return Agreement(set(slots), set())
        try:
            agreement = await asyncio.wait_for(self._agree(channel, named, waiting_since), CLAIM_TIME)
        except Exception as error:  # noqa: BLE001 - whatever ails Airflow's API, each triggerer has a line of its own
            self._failed(error)
            return Agreement(set(slots), set())
        if self._has_failed:
            self._has_failed = False
            log.info("The triggerers agree again on whom to release from the queue.")
        return agreement._replace(mine=own | agreement.mine)

    async def prune(self) -> None:
        """Remove old claims, whoever made them."""
        try:
            for key in [] if self.is_alone else old_claims(self._known, time.time())[:_PRUNED]:
                await _in_thread(compat.delete_variable, key)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)

    async def _agree(self, channel: str, slots: list[str], waiting_since: Sequence[float]) -> Agreement:
        if channel not in self._claimants:
            self._claimants[channel] = Claimant(line_digest(self._conn_id, channel), self._runner)
        claimant = self._claimants[channel]
        look = claimant.look(await self._keys(claimant.prefix), slots, first_since=waiting_since[0], now=time.time())
        if look.wanted or look.tells:
            stays = waiting_since[len(look.wanted) :]
            key = claimant.claim(look.wanted, first_since=stays[0] if stays else None, now=time.time())
            await _in_thread(compat.set_variable, key, "", _DESCRIPTION)
        if not look.wanted:
            return Agreement(set(), look.taken, look.put_off)
        mine = claimant.won(await self._keys(claimant.prefix), look.wanted)
        lost = set(look.wanted) - mine
        return Agreement(mine, look.taken | lost, put_off(0.0) if lost else look.put_off)

    async def _keys(self, prefix: str) -> list[str]:
        self._known = await _in_thread(compat.variable_keys, prefix)
        return self._known

    def _failed(self, error: Exception) -> None:
        self._alone_until = time.monotonic() + ALONE_FOR
        if not self._has_failed:
            # Its type alone, and once: the next failures say the same.
            log.warning(
                "The triggerers cannot agree on whom to release from the queue (%s): each goes by its own line.",
                type(error).__name__,
            )
        self._has_failed = True


async def _in_thread(call: Any, *arguments: str) -> Any:
    from asgiref.sync import sync_to_async

    # In any thread: a task on the loop itself has no greenback portal for Airflow's synchronous calls.
    return await sync_to_async(call, thread_sensitive=False)(*arguments)
