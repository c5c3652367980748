"""Irrigation of several fields from one pump and one water permit: FAO-56 water balance, FAO-33 yield response.

Each day one field, or none, gets a set of water. A field's root zone holds ``TAW = a Zr`` [mm] of water, of which
``Dr`` is missing. With the day's reference evapotranspiration ETo, rain P and applied water I [mm]:

    ETc = Kc ETo,   Ks = clip((TAW - Dr) / ((1 - p) TAW), 0, 1),   ETa = Ks ETc        (FAO-56: 58, 84, 81)
    Dr' = clip(Dr - P - e I + ETa, 0, TAW),   DP = max(P + e I - ETa - Dr, 0)          (85, 86, 88)
    R   = - sum_f v_f s_f Ky_f (ETc - ETa)_f / N_f,   N_f = mean(ETo) sum_t Kc_f(t)    (FAO-33, 90)

so that an episode's return is minus the value-weighted relative yield loss. How much water a soil holds (a), how
sensitive the field's cultivar is (s, 1 for the crop's average), how much of a set reaches the roots (e) and the climate
are the task's secret; crops, prices and the permit are known.
"""

from __future__ import annotations

from typing import ClassVar

import chex
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import fao56, irrigation

# What features and permits assume, an agent not knowing its own; units as in AgricultureParams.
TYPICAL_SOIL, TYPICAL_EFFICIENCY = 130.0, 0.675
SOIL_RANGE = (min(low for low, _ in fao56.SOILS.values()), max(high for _, high in fao56.SOILS.values()))
TYPICAL_WEATHER = (5.25, 1.4)  # ETo and rain [mm], remembered at the start
SET_DEPTH = 30.0  # gross [mm]
REWARD_SCALE = 0.05  # a bad day's reward
MEMORY = 1.0 / 7.0  # weight of the last day in the running means of the weather
# Constants of heuristic_action, tuned on sample_params.
HEURISTIC = (0.15, 0.83, 1.47, 1.13, 0.93, 1.05, 19.2)


@struct.dataclass
class AgricultureState(EnvState):
    """Attributes:
    chosen: ``i32[]`` today's action.
    sets: ``f32[]`` sets of water left.
    depletion: ``f32[F]`` Dr [mm].
    measured: ``f32[F]`` Dr as the probe reads it [mm].
    measured_before: ``f32[F]`` the same a day earlier [mm].
    canopy: ``f32[F]`` yesterday's 1 - ETa/ETc as the canopy shows it, with noise.
    since: ``f32[F]`` days since the field's last set.
    weather: ``f32[2]`` yesterday's ETo and rain [mm].
    usual: ``f32[2]`` their running means [mm].
    """

    chosen: chex.Array
    sets: chex.Array
    depletion: chex.Array
    measured: chex.Array
    measured_before: chex.Array
    canopy: chex.Array
    since: chex.Array
    weather: chex.Array
    usual: chex.Array


@struct.dataclass
class AgricultureParams(EnvParams):
    """Attributes:
    kc: ``f32[F, P]`` crop coefficient by day; 0 from maturity on.
    kc_left: ``f32[F, P + 1]`` sum of ``kc`` from a day on.
    root_depth: ``f32[F]`` Zr [m].
    fraction: ``f32[F]`` p, readily available share of TAW.
    response: ``f32[F]`` Ky, relative yield loss by relative evapotranspiration deficit.
    value: ``f32[F]`` v, what a field's full yield is worth.
    set_depth: ``f32[]`` gross depth of a set [mm].
    permit: ``f32[]`` sets allowed in the season.
    probe_noise: ``f32[]`` standard deviation of a probe's reading [mm].
    canopy_noise: ``f32[]`` standard deviation of the canopy's stress signal.
    variation: ``f32[]`` a day's ETo is uniform within plus and minus this share of its mean.
    available_water: ``f32[F]`` a [mm/m]. Hidden.
    sensitivity: ``f32[F]`` s, of the field's cultivar: its yield response is s times its crop's. Hidden.
    efficiency: ``f32[F]`` e, share of a set that reaches the root zone. Hidden.
    eto: ``f32[]`` mean ETo [mm/day]. Hidden.
    rain_chance: ``f32[]`` of a day, in (0, 1). Hidden.
    rain_depth: ``f32[]`` mean rain of a rainy day [mm], exponentially distributed. Hidden.
    """

    kc: chex.Array
    kc_left: chex.Array
    root_depth: chex.Array
    fraction: chex.Array
    response: chex.Array
    value: chex.Array
    set_depth: chex.Array
    permit: chex.Array
    probe_noise: chex.Array
    canopy_noise: chex.Array
    variation: chex.Array
    available_water: chex.Array
    sensitivity: chex.Array
    efficiency: chex.Array
    eto: chex.Array
    rain_chance: chex.Array
    rain_depth: chex.Array


class Agriculture(ResourceEnv[AgricultureState, AgricultureParams]):
    """F fields, one choice a day.

    Action 0 waters nothing, action ``1 + f`` gives field f a set; legal while a set is left and its crop not mature.
    What is seen of the weather is yesterday's.

    Tokens: F fields, then the water source, then the weather. Dr' is the probe's reading, TAW' is TAW on a soil that
    holds 130 mm/m. Tomorrow's 1 - Ks is that of Dr' + Kc ETo, Kc of today and ETo of yesterday, on soils that hold 50
    to 200 mm/m, each as likely (:func:`envs_jax.references.fao56.mean_stress`).

    ======= ============ ===============================================================================
    token   column       quantity
    ======= ============ ===============================================================================
    field   urgency      v Ky Kc / (sum of Kc) of tomorrow times its mean 1 - Ks over soils, if it is not watered
    field   slack        1 - Dr' / (p TAW'), in [0, 1]
    field   level        1 - Dr' / TAW', unclipped
    field   capacity     TAW'
    field   outflow      Kc times ETo, both of yesterday [10 mm]
    field   age          days since the last set [30]
    field   unit_value   v Ky / (sum of Kc): what a day of full demand is worth [1/50]
    field   private_a    Kc still to come, summed over days [100]
    field   private_b    change of Dr' since yesterday [gross depth of a set]
    field   private_c    yesterday's 1 - ETa/ETc as the canopy shows it, with noise
    field   private_d    Kc of today
    field   private_e    p
    field   private_f    Zr [2 m]
    source  slack        sets left / days left, at most 1
    source  level        sets left / permit
    source  capacity     permit
    source  is_turn      1
    source  private_a    permit / P
    weather inflow       running mean of rain [10 mm], over about a week
    weather outflow      ETo of yesterday [10 mm]
    weather private_a    running mean of ETo [10 mm]
    weather private_b    rain of yesterday [30 mm]
    all     progress     share of the season gone
    all     last_reward  R of yesterday [.05]
    ======= ============ ===============================================================================

    Roles: field ``demand``, source ``supplier``, weather ``clock``. The choice is the source's: where its set goes.
    Action 0 is the no-op; any other one gives all of a set, so its ``amount`` and ``signed`` are 1. Features without
    bounds are clipped to [-10, 10].

    Shown: crops, root depths, values, the permit. Hidden: available water of each soil, sensitivity of each
    cultivar, efficiency of each field's irrigation, the climate. Reward against the canopies' stress identifies s; a
    set's effect on the probe identifies e; where the canopy and the reward begin to show stress, and where rain ceases
    to fill the soil, identifies TAW.

    Key figures in ``info``: ``yield_loss`` -R [yield value]; ``evapotranspiration`` ETa, ``demand`` ETc,
    ``irrigation`` gross, ``percolation`` [mm, summed over fields]; ``rain`` [mm]; ``stressed_fields`` with Ks < 1.

    Invariants: Dr' - Dr = ETa + DP - P - e I where the soil does not run empty; 0 <= Dr <= TAW; 0 <= Ks <= 1;
    ETa <= ETc; DP > 0 only if Dr' = 0; sets used <= permit; the return is at most 0;
    permuting fields permutes tokens and changes no reward.

    Source: Allen et al., FAO Irrigation and Drainage Paper 56, 1998 (single crop coefficient); Doorenbos & Kassam, FAO
    33, 1979. Crop tables as in ``pyfao56`` 1.4.3 (read). Task ranges, noise, and one set a day are choices made here.

    Usage::

        env, params = envs_jax.make("agriculture")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_fields: F, at most 512.
      num_periods: P, days, at most 10,000; F x P is at most 2^18.
    """

    name: ClassVar[str] = "agriculture"
    hidden: ClassVar[tuple[str, ...]] = (
        "available_water",
        "sensitivity",
        "efficiency",
        "eto",
        "rain_chance",
        "rain_depth",
    )
    reward_unit: ClassVar[str] = "yield value"
    # A Lagrangian index rule; irrigation.upper_bound says how far from the optimum it can be.
    reference_kind: ClassVar[str] = "heuristic"

    def __init__(self, num_fields: int = 6, num_periods: int = 120) -> None:
        super().__init__()
        num_fields, num_periods = checks.whole_numbers(
            self.name, num_fields=(num_fields, 1, 512), num_periods=(num_periods, 1, 10_000)
        )
        # The reference tabulates 320 values a field and day.
        checks.product(self.name, {"num_fields": num_fields, "num_periods": num_periods}, 2**18)
        self.num_fields = num_fields
        self.num_turns = 1
        self.num_periods = num_periods
        self.num_tokens = num_fields + 2
        self.num_actions = num_fields + 1
        self.noop_action = 0
        self.num_uniforms = 2 + 2 * num_fields
        self.num_reset_uniforms = num_fields

    def _task(self, harvest: chex.Array, budget: chex.Array, **given: chex.Array) -> AgricultureParams:
        """A task from draws; ``budget``: the permit as a share of the net requirement, at typical efficiency."""
        crop = given.pop("crop")
        place, ky = (np.array([row[k] for row in fao56.CROPS.values()], np.float32) for k in (3, 4))
        kc, kc_left = fao56.season(crop, harvest, self.num_periods)
        rain = given["rain_chance"] * given["rain_depth"]
        net = jnp.sum(
            jnp.maximum(
                given["eto"] * kc_left[:, 0] - rain * jnp.sum(kc > 0, axis=1, dtype=jnp.int32).astype(jnp.float32), 0.0
            )
        )
        depth = jnp.float32(SET_DEPTH)
        return AgricultureParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            kc=kc,
            kc_left=kc_left,
            fraction=jnp.asarray(place)[crop],
            response=jnp.asarray(ky)[crop],
            set_depth=depth,
            permit=jnp.clip(jnp.round(budget * net / (TYPICAL_EFFICIENCY * depth)), 1.0, self.num_periods),
            probe_noise=jnp.float32(5.0),
            canopy_noise=jnp.float32(0.2),
            **given,
        )

    @property
    def default_params(self) -> AgricultureParams:
        """Six of FAO-56's crops on loam in the climate of its Example 17 (Bangkok, April), ETo the same every day."""
        fields = jnp.arange(self.num_fields, dtype=jnp.int32)
        crop = fields % 6
        ranges = np.array([row[2] for row in fao56.CROPS.values()], np.float32).mean(1)
        same = jnp.ones((self.num_fields,), jnp.float32)
        return self._task(
            harvest=self.num_periods * same,
            budget=jnp.float32(0.6),
            crop=crop,
            root_depth=jnp.asarray(ranges)[crop],
            value=same,
            variation=jnp.float32(0.0),
            available_water=sum(fao56.SOILS["loam"]) / 2.0 * same,
            sensitivity=same,
            efficiency=0.75 * same,
            eto=jnp.float32(5.72),
            rain_chance=jnp.float32(0.1),
            rain_depth=jnp.float32(8.0),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> AgricultureParams:
        """One task.

        Crops of ``fao56.CROPS`` and soils of ``fao56.SOILS`` at random, root depth and available water uniform in their
        ranges, maturity on day U(5/6 P, P), v ~ U(.5, 2) scaled to mean 1, s ~ U(.2, 1.8), e ~ U(.4, .95), mean ETo
        U(3.5, 7) mm/day, rain on a day with chance U(.02, .25), of mean U(5, 15) mm, permit U(.3, .9) of the net
        requirement.
        """
        f, days = self.num_fields, self.num_periods
        u = self.task_uniforms(key, split, 8 * f + 4)
        per_field, (eto, chance, depth, budget) = u[: 8 * f].reshape(8, f), u[8 * f :]
        crop = sampling.integers(per_field[0], 0, len(fao56.CROPS) - 1)
        soil = sampling.integers(per_field[1], 0, len(fao56.SOILS) - 1)
        roots = jnp.asarray(np.array([row[2] for row in fao56.CROPS.values()], np.float32))[crop]
        water = jnp.asarray(np.array(list(fao56.SOILS.values()), np.float32))[soil]
        value = 0.5 + 1.5 * per_field[4]
        return self._task(
            harvest=jnp.ceil(days * (5.0 + per_field[2]) / 6.0),
            budget=0.3 + 0.6 * budget,
            crop=crop,
            root_depth=roots[:, 0] + (roots[:, 1] - roots[:, 0]) * per_field[3],
            value=value / value.mean(),
            variation=jnp.float32(0.35),
            available_water=water[:, 0] + (water[:, 1] - water[:, 0]) * per_field[5],
            sensitivity=0.2 + 1.6 * per_field[7],
            efficiency=0.4 + 0.55 * per_field[6],
            eto=3.5 + 3.5 * eto,
            rain_chance=0.02 + 0.23 * chance,
            rain_depth=5.0 + 10.0 * depth,
        )

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: AgricultureParams) -> AgricultureState:
        """Soils at field capacity, the whole permit left, typical weather remembered; ``uniforms`` read the probes."""
        zeros = jnp.zeros((self.num_fields,), jnp.float32)
        return AgricultureState(
            **self.clock(key),
            chosen=jnp.int32(0),
            sets=params.permit,
            depletion=zeros,
            measured=params.probe_noise * sampling.normal(uniforms),
            measured_before=zeros,
            canopy=zeros,
            since=zeros,
            weather=jnp.array(TYPICAL_WEATHER, jnp.float32),
            usual=jnp.array(TYPICAL_WEATHER, jnp.float32),
        )

    def choose(
        self, state: AgricultureState, turn: chex.Array, action: chex.Array, params: AgricultureParams
    ) -> AgricultureState:
        """Notes today's field; an illegal choice waters nothing."""
        del turn
        legal = self._legal(state, params)[jnp.maximum(action - 1, 0)] & (action > 0)
        return state.replace(chosen=jnp.where(legal, action, 0))

    def _legal(self, state: AgricultureState, params: AgricultureParams) -> chex.Array:
        """Fields ``bool[F]`` that may be watered today."""
        return (state.sets >= 1.0) & (params.kc_left[:, self.period(state)] > 0)

    def available(self, params: AgricultureParams) -> chex.Array:
        """TAW ``f32[F]`` [mm] (82)."""
        return params.available_water * params.root_depth

    def _worth(self, params: AgricultureParams) -> chex.Array:
        """Loss by mm of demand that is not met, ``f32[F]``."""
        return params.value * params.sensitivity * params.response / (params.eto * params.kc_left[:, 0])

    def advance(
        self, state: AgricultureState, uniforms: chex.Array, params: AgricultureParams
    ) -> tuple[AgricultureState, chex.Array, dict[str, chex.Array]]:
        """A day. Uniforms: rain, ETo, then F for the probes and F for the canopies."""
        f, available = self.num_fields, self.available(params)
        rain = irrigation.weather_rain(uniforms[0], params.rain_chance, params.rain_depth)
        eto = params.eto * (1.0 + params.variation * (2.0 * uniforms[1] - 1.0))
        taken = (jnp.arange(1, f + 1, dtype=jnp.int32) == state.chosen).astype(jnp.float32)
        demand = params.kc[:, self.period(state)] * eto
        stress = fao56.water_stress(state.depletion, available, params.fraction)
        use = stress * demand
        gross = params.set_depth * taken
        depletion, drained = fao56.water_balance(state.depletion, rain + params.efficiency * gross, use, available)
        loss = self._worth(params) * (demand - use)
        noise = sampling.normal(uniforms[2:])
        weather = jnp.stack([eto, rain])
        info = {
            "yield_loss": jnp.sum(loss),
            "evapotranspiration": jnp.sum(use),
            "demand": jnp.sum(demand),
            "irrigation": jnp.sum(gross),
            "rain": rain,
            "percolation": jnp.sum(drained),
            "stressed_fields": jnp.sum((stress < 1.0) & (demand > 0), dtype=jnp.float32),
        }
        state = state.replace(
            chosen=jnp.int32(0),
            sets=state.sets - taken.sum(),
            depletion=depletion,
            measured=depletion + params.probe_noise * noise[:f],
            measured_before=state.measured,
            canopy=1.0 - stress + params.canopy_noise * noise[f:],
            since=jnp.where(taken > 0, 0.0, state.since + 1.0),
            weather=weather,
            usual=state.usual + MEMORY * (weather - state.usual),
        )
        return state, -jnp.sum(loss), info

    def observation(self, state: AgricultureState, params: AgricultureParams) -> Observation:
        """See the class docstring for the columns."""
        day = self.period(state)
        last = self.num_periods - 1
        # The first day's yesterday is as itself; after the last one nothing is lost.
        yesterday, today, tomorrow = (params.kc[:, jnp.clip(day + ahead, 0, last)] for ahead in (-1, 0, 1))
        tomorrow = jnp.where(day < last, tomorrow, 0.0)
        typical = TYPICAL_SOIL * params.root_depth
        empty = state.measured / typical
        worth = params.value * params.response / params.kc_left[:, 0]
        dry = (state.measured + today * state.weather[0]) / params.root_depth
        days_left = jnp.maximum(self.num_periods - day, 1)
        common = {"progress": self.progress(state), "last_reward": bounded(state.last_reward / REWARD_SCALE)}
        fields = {
            "urgency": worth * tomorrow * fao56.mean_stress(dry, params.fraction, *SOIL_RANGE),
            "slack": jnp.clip(1.0 - empty / params.fraction, 0.0, 1.0),
            "level": bounded(1.0 - empty),
            "capacity": typical,
            "outflow": yesterday * state.weather[0] / 10.0,
            "age": bounded(state.since / 30.0),
            "unit_value": bounded(50.0 * worth),
            "private_a": params.kc_left[:, day] / 100.0,
            "private_b": bounded((state.measured - state.measured_before) / params.set_depth),
            "private_c": bounded(state.canopy),
            "private_d": today,
            "private_e": params.fraction,
            "private_f": params.root_depth / 2.0,
            **common,
        }
        source = {
            "slack": jnp.minimum(state.sets / days_left.astype(jnp.float32), 1.0),
            "level": state.sets / params.permit,
            "capacity": params.permit,
            "is_turn": 1.0,
            "private_a": params.permit / self.num_periods,
            **common,
        }
        sky = {
            "inflow": bounded(state.usual[1] / 10.0),
            "outflow": state.weather[0] / 10.0,
            "private_a": state.usual[0] / 10.0,
            "private_b": bounded(state.weather[1] / 30.0),
            **common,
        }
        actions = jnp.arange(self.num_actions, dtype=jnp.int32)
        given = actions > 0
        return make_observation(
            tokens=[("demand", self.num_fields, fields), ("supplier", 1, source), ("clock", 1, sky)],
            actions={"is_noop": ~given, "amount": given, "signed": given},
            action_target=actions - 1,
            action_mask=jnp.concatenate([jnp.ones((1,), bool), self._legal(state, params)]),
        )

    def farm(self, params: AgricultureParams) -> irrigation.Farm:
        """The task as a programme over its fields' depletions."""
        return irrigation.Farm(
            demand=params.eto * params.kc,
            worth=self._worth(params),
            available=self.available(params),
            fraction=params.fraction,
            gain=params.efficiency * params.set_depth,
            rain_chance=params.rain_chance,
            rain_depth=params.rain_depth,
        )

    def solve(self, params: AgricultureParams) -> irrigation.Plan:
        """Prices of the pump by the day, and each field's value of water for a grid of water prices."""
        return irrigation.solve(self.farm(params), params.permit)

    def upper_bound(self, params: AgricultureParams) -> chex.Array:
        """Expected return ``f32[]`` that no policy without foreknowledge exceeds, up to the grid of depletions."""
        return irrigation.upper_bound(self.solve(params), params.permit)

    def reference_action(
        self, plan: irrigation.Plan, state: AgricultureState, params: AgricultureParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The day's set goes where it is worth most beyond the present price of water, if anywhere."""
        del key
        day = jnp.minimum(self.period(state), self.num_periods - 1)
        worth = irrigation.advantages(plan, day, state.depletion, state.sets)
        worth = jnp.where(self._legal(state, params), worth, -jnp.inf)
        return jnp.where(jnp.max(worth) > 0, 1 + jnp.argmax(worth).astype(jnp.int32), 0).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Value-weighted depletion rule: the driest field for its crop, its soil taken as typical.

        A field's merit is its measured depletion in units of RAW plus a share of the canopy's stress, less a threshold
        that rises when the permit falls short of the demand to come; valuable fields and crops in full leaf come first,
        nearly mature ones last. The constants were tuned on ``sample_params``.
        """
        del key
        f, column = self.num_fields, observation.column
        level, unit_value = (column(name)[:f] for name in ("level", "unit_value"))
        to_come, canopy, kc, fraction = (column(f"private_{letter}")[:f] for letter in "acde")
        threshold, by_canopy, thrift, worth, leaf, ripe, speed = HEURISTIC
        permit = column("private_a")[f] * self.num_periods
        supply = column("level")[f] * permit * SET_DEPTH * TYPICAL_EFFICIENCY
        need = jnp.sum(to_come) * 100.0 * TYPICAL_WEATHER[0]
        enough = jnp.minimum(supply / (need + 1e-3), 1.5)
        merit = (1.0 - level) / fraction + by_canopy * canopy
        merit += worth * jnp.log(jnp.maximum(2.0 * unit_value, 2e-3)) + leaf * (kc - 0.9)
        merit -= threshold + thrift * (1.0 - enough) + ripe * jnp.exp(-speed * to_come)
        merit = jnp.where(observation.action_mask[1:], merit, -jnp.inf)
        return jnp.where(jnp.max(merit) > 0, 1 + jnp.argmax(merit).astype(jnp.int32), 0).astype(jnp.int32)
