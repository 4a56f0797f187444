"""Routers of several sites, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.serving.applications import build_applications
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import DROPPED_LATE, TIMED_OUT, DesiredState
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.router import SiteRouter, WarmupCalls
from circinus.serving.ray.serve_config import build_router_configs
from circinus.serving.ray.site_router import RouterConfig, config_to_dict
from circinus.serving.replicas.replica_protocol import BatchResult, ItemResult
from circinus.specification import Infrastructure, LatePolicy, Link, Site
from circinus.testing.desired_states import StageSpec, chain, route, split_route, state
from raised import raises_code
from router_scenario import Scene, driven

START = StageSpec("start", "add")
LEFT = StageSpec("left", "add", after=("start",), pool="far")
RIGHT = StageSpec("right", "add", after=("left",))
JOIN = StageSpec("join", "pair", after=("right", "start"), pool="far")


@driven
async def test_a_route_with_a_fork_and_a_join_over_two_sites() -> None:
    scene = Scene(chain("q", START, LEFT, RIGHT, JOIN))
    assert await scene.ask(1) == [4, 2]
    response = await scene.boards["home"].submit("q", "item", pickle_value(1), 100.0)
    assert dict(response.timings.stage_s) == dict.fromkeys(("start", "left", "right", "join"), 0.5)
    value = len(pickle_value(1))
    # The output of `start` crosses once for both consumers, that of `right` once; so do both returns.
    assert response.timings.link_bytes["home->center"] == 2 * value
    assert response.timings.link_bytes["center->home"] == value + len(pickle_value([4, 2]))
    assert scene.crossings[:4] == [("start", "center"), ("left", "home"), ("right", "center"), ("join", "home")]


@driven
async def test_the_router_at_the_source_picks_the_part_of_a_request_and_moves_those_of_a_lost_part() -> None:
    far = replace(START, pool="far")
    desired = state([split_route("q", (0.6, [START]), (0.4, [far]))], [START, far])
    scene = Scene(desired)
    home = scene.boards["home"]
    responses = [await home.submit("q", "item", pickle_value(1), 100.0) for _ in range(100)]
    assert sum(response.timings.part for response in responses) == pytest.approx(40, abs=2)
    assert [bool(response.timings.link_bytes) for response in responses] == [bool(r.timings.part) for r in responses]
    scene.hold.clear()
    waiting = [asyncio.create_task(scene.ask(1)) for _ in range(10)]
    await asyncio.sleep(1)
    near, lost = (app.name for app in scene.applications)
    under_way = home.under_way()
    assert under_way[near] + under_way[lost] == 10
    home.fail_requests([lost], "its pool is lost")
    scene.hold.set()
    assert await asyncio.gather(*waiting) == [2] * 10
    assert min(under_way[lost], under_way[near]) > 0
    (split,) = home.splits()
    assert sum(part.requests for part in split.parts) == 110
    assert [part.available for part in split.parts] == [True, True]
    scene.unreachable.add("center")
    assert [await scene.ask(1) for _ in range(10)] == [2] * 10
    home.set_presence(near, False)  # no part is left
    with raises_code(ServingError, "query.request_failed"):
        await scene.ask(1)
    assert [part.available for part in home.splits()[0].parts] == [False, True]


@driven
async def test_requests_of_a_lost_part_are_divided_by_the_shares_of_the_others_and_take_no_part_twice() -> None:
    specs = [replace(START, batch_size=size) for size in (1, 2, 3)]
    scene = Scene(state([split_route("q", *zip((0.5, 0.25, 0.25), ([spec] for spec in specs), strict=True))], specs))
    home, (first, second, _) = scene.boards["home"], [app.name for app in scene.applications]
    scene.hold.clear()
    waiting = [asyncio.create_task(scene.ask(1)) for _ in range(80)]
    await asyncio.sleep(1)
    home.set_presence(first, False)
    await asyncio.sleep(1)
    assert [part.requests for part in home.splits()[0].parts] == [0, pytest.approx(40, abs=2), pytest.approx(40, abs=2)]
    home.set_presence(first, True)
    home.set_presence(second, False)
    await asyncio.sleep(1)
    requests = [part.requests for part in home.splits()[0].parts]
    assert requests == [pytest.approx(13, abs=2), 0, pytest.approx(67, abs=2)]
    scene.hold.set()
    assert await asyncio.gather(*waiting) == [2] * 80


@driven
async def test_a_request_that_moves_after_a_change_of_routes_counts_where_it_entered() -> None:
    specs = [replace(START, batch_size=size) for size in (1, 2, 3)]
    before, after = (state([split_route("q", (0.5, specs[:1]), (0.5, [other]))], specs) for other in specs[1:])
    scene = Scene(before)
    home, first = scene.boards["home"], scene.applications[0].name
    scene.hold.clear()
    waiting = [asyncio.create_task(scene.ask(1)) for _ in range(10)]
    await asyncio.sleep(1)
    home.configure(build_router_configs(after, scene.applications)["home"])
    home.set_presence(first, False)
    await asyncio.sleep(1)
    assert [part.requests for part in home.splits()[0].parts] == [0, pytest.approx(5, abs=1)]
    scene.hold.set()
    assert await asyncio.gather(*waiting) == [2] * 10


@driven
async def test_a_value_that_goes_to_two_sites_over_one_link_counts_there_twice() -> None:
    """Plans and the local engine count transfers alike."""
    left, right = StageSpec("left", "add"), StageSpec("right", "add", pool="far")
    desired = chain("q", left, right, StageSpec("join", "pair", after=("left", "right")))
    near, far = desired.infrastructure.pools
    lan, wan = (
        Link(source=source, target=target, bandwidth_bytes_per_s=1e9, round_trip_s=0.0)
        for source, target in (("home", "edge"), ("edge", far.site))
    )
    scene = Scene(
        replace(
            desired,
            infrastructure=Infrastructure(
                name="line",
                sites=(Site(name="home"), Site(name="edge"), Site(name=far.site)),
                pools=(near.model_copy(update={"site": "edge"}), far),
                links=(lan, wan),
            ),
        )
    )
    response = await scene.boards["home"].submit("q", "item", pickle_value(1), 100.0)
    assert response.timings.link_bytes == {
        "home->edge": 200.0,
        "edge->center": 100.0,
        "center->edge": len(pickle_value(2)),
        "edge->home": len(pickle_value([2, 2])),
    }


@driven
async def test_in_a_replay_as_many_bytes_cross_links_as_were_recorded() -> None:
    """Values are missing in a replay; replicas of the scene report outputs of 1000 bytes."""
    scene = Scene(chain("q", START, LEFT, RIGHT))
    deliver, crossed = scene.deliver, []

    async def replaying(application: str, items: Any, payloads: Any, limit_s: Any) -> Any:
        assert payloads == []
        results = [ItemResult("", 0.5, 0.5, 1000.0, has_payload="right" in application) for _ in items]
        return BatchResult(0.0, results), [pickle_value("recorded") for result in results if result.has_payload]

    async def delivering(site: str, parcel: Any, age_s: float, padding: bytes) -> None:
        crossed.append((parcel.producer, parcel.value, len(padding)))
        await deliver(site, parcel, age_s, padding)

    scene.process, scene.deliver = replaying, delivering  # type: ignore[method-assign]
    answer = await scene.boards["home"].submit("q", "item", None, 300.0)
    assert answer.unpickle().output == "recorded"
    assert crossed == [("start", None, 1000), ("left", None, 1000)]
    assert answer.timings.link_bytes == {"home->center": 1000.0, "center->home": 1000.0}


@driven
async def test_several_sinks_answer_together() -> None:
    scene = Scene(chain("q", START, LEFT, StageSpec("other", "add", after=("start",))))
    assert await scene.ask(1) == {"left": 3, "other": 3}


@driven
async def test_as_many_batches_at_once_as_replicas_and_what_waits_goes_together() -> None:
    scene = Scene(chain("q", StageSpec("start", "add", replicas=2, batch_size=4)))
    scene.hold.clear()
    first = [asyncio.create_task(scene.ask(0)) for _ in range(2)]
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(scene.ask(0)) for _ in range(6)]
    await asyncio.sleep(0.01)
    (seen,) = scene.boards["home"].observe().deployments.values()
    assert (seen.queue_length, seen.requests) == (2, 8)
    scene.hold.set()
    assert await asyncio.gather(*first, *others) == [1] * 8
    assert scene.most_at_once == 2
    assert [size for _, size in scene.batches] == [2, 4, 2]


@driven
async def test_a_lost_replica_costs_no_request_and_one_that_ends_replicas_is_given_up() -> None:
    scene = Scene(chain("q", START))
    losses = iter([True, False])
    scene.lose = lambda items: next(losses)
    assert await scene.ask(1) == 2
    (seen,) = scene.boards["home"].observe().deployments.values()
    assert seen.restarts == 1
    assert "unplugged" in seen.message
    scene.lose = lambda items: True
    with raises_code(ServingError, "query.request_failed") as caught:
        await scene.ask(1)
    assert all(word in caught.value.message for word in ("start", "item", "2 replicas", "unplugged"))


@driven
async def test_items_of_a_replica_that_ended_at_its_time_limit_are_not_repeated() -> None:
    desired = chain("q", START)
    scene = Scene(replace(desired, deployments=(replace(desired.deployments[0], batch_limit_s=5.0),)))
    scene.hold.clear()
    request = asyncio.create_task(scene.ask(1))
    await asyncio.sleep(5.0)
    scene.lose = lambda items: True
    scene.hold.set()
    with raises_code(ServingError, TIMED_OUT):
        await request
    assert len(scene.batches) == 1
    (seen,) = scene.boards["home"].observe().deployments.values()
    assert (seen.timeouts, seen.restarts) == (1, 1)


@driven
async def test_requests_of_a_lost_pool_take_the_route_of_the_next_plan() -> None:
    scene = Scene(chain("q", replace(START, pool="far")))
    scene.hold.clear()
    waiting = [asyncio.create_task(scene.ask(1)) for _ in range(50)]
    await asyncio.sleep(1.0)
    (lost,) = (app.name for app in scene.applications)
    desired = chain("q", START)
    home = scene.boards["home"]
    home.configure(build_router_configs(desired, build_applications(desired))["home"])
    home.fail_requests([lost], "its pool is lost")
    scene.hold.set()
    assert await asyncio.gather(*waiting) == [2] * 50


@driven
async def test_a_request_waits_again_where_the_pool_is_lost_that_a_paused_query_got() -> None:
    scene = Scene(chain("q", START))
    home = scene.boards["home"]
    (served,) = home.routes["q"]
    paused = [replace(served, stages={}, sinks=(), transfers={})]
    scene.hold.clear()
    home.routes = {"q": paused}
    waiting = asyncio.create_task(scene.ask(1))
    await asyncio.sleep(1.0)
    home.routes = {"q": [served]}
    await asyncio.sleep(1.0)
    home.routes = {"q": paused}
    home.fail_requests(served.applications, "its pool is lost")
    await asyncio.sleep(1.0)
    assert not waiting.done()
    scene.hold.set()
    home.routes = {"q": [replace(served, audit_rate=0.5)]}
    assert await waiting == 2


@driven
async def test_an_error_names_operator_and_item_wherever_it_happens() -> None:
    scene = Scene(chain("q", StageSpec("start", "add", pool="far"), StageSpec("next", "add", after=("start",))))
    with raises_code(ServingError, "query.request_failed") as caught:
        await scene.ask(-1)
    assert caught.value.location == "query q"
    assert "operator start failed on item 'item': ValueError: -1 is negative" in caught.value.message
    assert await scene.ask(1) == 3


@driven
async def test_a_site_that_cannot_be_reached_fails_its_requests_only() -> None:
    here, there = StageSpec("here", "add"), StageSpec("there", "add", pool="far")
    scene = Scene(state([route("here", here), route("there", there)], [here, there]))
    scene.unreachable.add("center")
    with raises_code(ServingError, "query.request_failed") as caught:
        await scene.ask(1, "there")
    assert "site center" in caught.value.message
    assert "unplugged" in caught.value.message
    assert await scene.ask(1, "here") == 2


@driven
async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    scene = Scene(chain("q", START, LEFT))
    scene.hold.clear()
    busy = asyncio.create_task(scene.ask(1))
    await asyncio.sleep(0.01)
    with raises_code(ServingError, "query.deadline_passed"):
        await scene.ask(5, left_s=0.02)
    scene.hold.set()
    assert await busy == 3
    await asyncio.sleep(0.01)
    assert [size for _, size in scene.batches] == [1, 1]
    assert scene.boards["home"].observe().under_way == {}


@driven
async def test_a_request_stays_on_the_route_it_began_on() -> None:
    old, new = chain("q", START), chain("q", StageSpec("start", "add", pool="far"))
    scene = Scene(old)
    scene.hold.clear()
    under_way = asyncio.create_task(scene.ask(1))
    await asyncio.sleep(0.01)
    both = Scene(new)
    home, center = scene.boards["home"], both.boards["center"]
    scene.boards["center"] = center
    config = build_router_configs(new, build_applications(new))
    home.configure(config["home"])
    scene.hold.set()
    both.deliver = scene.deliver  # type: ignore[method-assign]
    assert await under_way == 2
    assert scene.batches[0][0].startswith("start-near-")


@driven
async def test_unknown_queries_are_refused_with_those_that_are_known() -> None:
    scene = Scene(chain("q", START))
    with raises_code(ServingError, "route.missing") as caught:
        await scene.ask(1, "nobody")
    assert caught.value.location == "query nobody"
    assert "queries with a route: q" in caught.value.message


def test_replicas_that_can_take_each_others_place_have_one_name() -> None:
    def names(desired: DesiredState) -> Mapping[str, str]:
        return {a.target.deployment.operator: a.name for a in build_applications(desired)}

    one = names(chain("q", START, LEFT))
    assert names(chain("q", StageSpec("start", "add", replicas=3, batch_wait_s=1.0), LEFT)) == one
    assert names(chain("q", StageSpec("start", "add", knobs=(("amount", 2),)), LEFT))["start"] != one["start"]
    assert one["left"].startswith("left-far-")


@driven
async def test_whatever_goes_wrong_nobody_waits_for_ever() -> None:
    scene = Scene(chain("q", StageSpec("start", "add", batch_size=4), LEFT))

    async def broken(*arguments: object) -> None:
        raise RuntimeError("larger than the most that may be sent")

    process, deliver = scene.process, scene.deliver
    scene.process = broken  # type: ignore[assignment, method-assign]
    answers = await asyncio.gather(*(scene.ask(1) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(a, ServingError) and "RuntimeError: larger than" in str(a) for a in answers)
    scene.process = process  # type: ignore[method-assign]
    scene.deliver = broken  # type: ignore[assignment, method-assign]
    with raises_code(ServingError, "query.request_failed") as caught:
        await scene.ask(1)
    assert "transfer to site center failed: larger than" in caught.value.message
    scene.deliver = deliver  # type: ignore[method-assign]
    assert await scene.ask(1) == 3


@driven
async def test_a_site_that_does_not_answer_is_waited_for_no_longer_than_the_deadline() -> None:
    scene = Scene(chain("q", START, LEFT))

    async def never(*arguments: object) -> None:
        await asyncio.Event().wait()

    scene.deliver = never  # type: ignore[assignment, method-assign]
    with pytest.raises(ServingError) as caught:
        await scene.ask(1, left_s=0.05)
    assert caught.value.code in ("query.deadline_passed", "query.request_failed")
    await asyncio.sleep(0.01)  # until the delivery is given up, too
    assert scene.boards["home"].observe().under_way == {}


@driven
async def test_a_batch_that_is_cancelled_under_way_is_begun_again() -> None:
    """Ray Serve cancels calls that it attributes to a disconnected client."""
    scene = Scene(chain("q", START))
    process, cancelled = scene.process, 0

    async def first_cancelled(*batch: Any) -> Any:
        nonlocal cancelled
        if not cancelled:
            cancelled += 1
            raise asyncio.CancelledError
        return await process(*batch)

    scene.process = first_cancelled  # type: ignore[method-assign]
    assert await scene.ask(1) == 2
    assert cancelled == 1


@driven
async def test_what_is_begun_for_a_request_knows_nothing_of_its_context() -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    scene = Scene(chain("q", START, LEFT))
    process, deliver, seen = scene.process, scene.deliver, set()

    async def noting(*batch: Any) -> Any:
        seen.add(whose.get())
        return await process(*batch)

    async def delivering(site: str, *arguments: Any) -> None:
        seen.add(whose.get())
        await deliver(site, *arguments)

    scene.process, scene.deliver = noting, delivering  # type: ignore[method-assign]
    whose.set("a client's")
    assert await scene.ask(1) == 3
    assert seen == {"nobody"}


@driven
async def test_requests_whose_deployments_are_taken_away_fail_and_others_do_not() -> None:
    here, there = StageSpec("here", "add"), StageSpec("there", "add", pool="far")
    scene = Scene(state([route("here", here), route("there", there)], [here, there]))
    scene.hold.clear()
    requests = [asyncio.create_task(scene.ask(1, name)) for name in ("here", "there")]
    await asyncio.sleep(0.01)
    (leaving,) = [a.name for a in scene.applications if a.target.deployment.pool == "far"]
    scene.boards["home"].fail_requests([leaving], "its pool is gone")
    scene.hold.set()
    with raises_code(ServingError, "query.request_failed") as caught:
        await requests[1]
    assert (caught.value.location, caught.value.message) == ("query there", "its pool is gone")
    assert await requests[0] == 2


@driven
async def test_answers_are_kept_to_be_audited_where_they_entered() -> None:
    steps = (StageSpec("start", "add"), StageSpec("next", "add", after=("start",), pool="far"))
    watched = replace(route("q", *steps), audit_rate=1.0)
    scene = Scene(state([watched, route("other", steps[0])], steps))
    assert await scene.ask(1) == 3
    assert await scene.ask(1, "other") == 2
    (sample,) = scene.boards["home"].audits.drain().samples
    assert (sample.query, sample.item_key, sample.configuration) == (
        "q",
        "item",
        configuration_hash(watched.configuration),
    )
    assert sample.value is not None
    assert (unpickle_value(sample.value), unpickle_value(sample.outputs["next"])) == (1, 3)
    assert scene.boards["home"].audits.drain().samples == scene.boards["center"].audits.drain().samples == ()


@driven
async def test_how_long_batches_took_is_told_by_the_site_of_the_deployment() -> None:
    steps = (StageSpec("start", "add"), StageSpec("next", "add", after=("start",), pool="far"))
    given = route("q", *steps)
    scene = Scene(state([given], steps))
    await scene.ask(1)
    with raises_code(ServingError, "query.request_failed"):
        await scene.ask(-1)
    for site, stage in (("home", given.stages[0]), ("center", given.stages[1])):
        (seen,) = scene.boards[site].observe().deployments.values()
        assert seen.batches == 1
        (batch,) = seen.recent_batches
        assert (batch.service_s, batch.items, batch.prefix) == (0.5, 1, configuration_hash(stage.prefix))


@driven
async def test_latest_starts_count_from_the_entry_and_drops_are_told_where_a_request_entered() -> None:
    steps = (StageSpec("start", "add"), StageSpec("next", "add", after=("start",), pool="far"))
    given = route("q", *steps)
    for latest_start_s, answer in ((1.5, 3), (0.5, None)):
        last = replace(given.stages[1], latest_start_s=latest_start_s)
        limited = replace(given, stages=(given.stages[0], last), late=LatePolicy.DROP)
        scene = Scene(state([limited], steps))
        scene.hold.clear()
        request = asyncio.create_task(scene.ask(1))
        await asyncio.sleep(1.0)  # the first stage takes as long, before the value crosses to the other site
        scene.hold.set()
        if answer is None:
            with raises_code(ServingError, DROPPED_LATE):
                await request
        else:
            assert await request == answer
        (counts,) = scene.boards["home"].observe().queries
        assert (counts.answered, counts.dropped, counts.failed) == ((0, 1, 0) if answer is None else (1, 0, 0))
        assert len(scene.batches) == (1 if answer is None else 2)


@driven
async def test_a_drop_at_another_site_ends_the_branches_there() -> None:
    steps = (
        StageSpec("start", "add"),
        StageSpec("left", "add", after=("start",), pool="far"),
        StageSpec("right", "add", after=("start",), pool="far"),
        StageSpec("join", "pair", after=("left", "right"), pool="far"),
    )
    given = route("q", *steps)
    stages = tuple(replace(stage, latest_start_s=0.5 if stage.operator == "right" else None) for stage in given.stages)
    scene = Scene(state([replace(given, stages=stages, late=LatePolicy.DROP)], steps))
    scene.hold.clear()
    request = asyncio.create_task(scene.ask(1))
    await asyncio.sleep(1.0)
    scene.hold.set()
    with raises_code(ServingError, DROPPED_LATE):
        await request
    await asyncio.sleep(60.0)
    scene.boards["center"]._sweep()
    assert not scene.boards["center"]._joins
    await asyncio.sleep(300.0)
    scene.boards["center"]._sweep()
    assert not scene.boards["center"]._reported


@driven
async def test_transfers_count_where_a_request_comes_back_to_its_entry() -> None:
    steps = (StageSpec("start", "add", pool="far"), StageSpec("next", "add", after=("start",)))
    given = route("q", *steps)
    last = replace(given.stages[1], latest_start_s=1.0)
    scene = Scene(state([replace(given, stages=(given.stages[0], last), late=LatePolicy.DROP)], steps))
    deliver = scene.deliver

    async def slow(*arguments: Any) -> None:
        await asyncio.sleep(2.0)
        await deliver(*arguments)

    scene.deliver = slow  # type: ignore[method-assign]
    with raises_code(ServingError, DROPPED_LATE):
        await scene.ask(1)


@driven
async def test_a_configuration_that_ray_serve_delivers_late_is_ignored() -> None:
    router = SiteRouter("home")
    second, third = (RouterConfig("home", "real", str(number), {}, (), number=number) for number in (2, 3))
    await router.switch(third)
    await router.reconfigure(config_to_dict(second))
    assert (await router.observe()).config == third
    await router.switch(second)  # a failed change takes its configuration back
    assert (await router.observe()).config == second
    await router.reconfigure(config_to_dict(third))
    assert (await router.observe()).config == third


@driven
async def test_a_late_configuration_does_not_prevent_a_switch_that_waits_for_warm_up_calls() -> None:
    router, warm = SiteRouter("home"), asyncio.Event()
    second, third = (RouterConfig("home", "real", str(number), {}, (), number=number) for number in (2, 3))
    await router.reconfigure(config_to_dict(second))

    async def make(names: Collection[str]) -> None:
        await warm.wait()

    with mock.patch.object(WarmupCalls, "make", side_effect=make):
        switching = asyncio.create_task(router.switch(third))
        await asyncio.sleep(0)
        await router.reconfigure(config_to_dict(second))
        warm.set()
        await switching
    assert (await router.observe()).config == third


@driven
async def test_a_part_that_comes_back_after_a_change_of_routes_is_available() -> None:
    far = replace(START, pool="far")
    desired = state([split_route("q", (0.5, [START]), (0.5, [far]))], [START, far])
    scene = Scene(desired)
    home, (near, _) = scene.boards["home"], [app.name for app in scene.applications]
    config = build_router_configs(desired, scene.applications)["home"]
    home.set_presence(near, False)
    home.configure(config)
    assert [part.available for part in home.splits()[0].parts] == [False, True]
    home.configure(replace(config, deployments={}, routes=()))
    home.configure(config)
    assert [part.available for part in home.splits()[0].parts] == [True, True]


@driven
async def test_the_router_checks_tokens_pages_and_bodies_behind_the_proxy_of_ray_serve() -> None:
    requests = pytest.importorskip("starlette.requests")
    token = "t" * 32
    desired = chain("q", START)
    (owned,) = desired.routes
    desired = replace(desired, routes=(replace(owned, tenant="acme"),))
    applications = build_applications(desired)
    (config,) = build_router_configs(desired, applications, tokens=HttpTokens.parse(f"acme {token}", "test")).values()
    router = SiteRouter("home")
    router._core.routes = {"q": config.routes}  # the proxy of Ray Serve is not part of the test, nor are its handles
    router._http.tokens = HttpTokens.parse(config.tokens, "test")

    async def status(*parts: bytes, **headers: str) -> int:
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        messages.append({"type": "http.request", "body": b"", "more_body": False})
        taken = iter(messages)

        async def receive() -> Any:
            return next(taken)

        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/home/q", "root_path": "/home", "headers": pairs}
        return int((await router(requests.Request(scope, receive))).status_code)

    valid = {"authorization": f"Bearer {token}"}
    assert await status(b"1") == 401
    assert await status(b"1", authorization="Bearer x") == 401
    assert await status(b"1", **valid, origin="http://page.example") == 403
    assert await status(b"{", **valid) == 400
    assert await status(*[bytes(2**20)] * 65, **valid) == 413
    assert router._core.counters.received("q") == 0
    assert await status(b"1", **valid) == 500, "it has entered a router without replicas"
    assert router._core.counters.received("q") == 1


@driven
async def test_a_router_has_the_tokens_of_its_configuration() -> None:
    router, tokens = SiteRouter("home"), HttpTokens.parse("* " + "t" * 32, "test")
    closed = RouterConfig("home", "real", "1", {}, (), number=1, tokens=tokens.text)
    await router.reconfigure(config_to_dict(closed))
    assert router._http.tokens == tokens
    await router.switch(replace(closed, tokens="", number=2))
    assert not router._http.tokens
