"""Builds, starts and stops people, fleet, logs, packages, training and links. Called by `assembly.py`."""

from __future__ import annotations

import os

from gleaner.app.context import AppContext
from gleaner.app.live.links import MachineLinks
from gleaner.app.services.auth import AuthService
from gleaner.app.services.auth_keys import KeyService
from gleaner.app.services.deploy import DeployService
from gleaner.app.services.fleet import FleetService
from gleaner.app.services.install import InstallLinks
from gleaner.app.services.job_runner import command_for
from gleaner.app.services.jobs import TrainingService
from gleaner.app.services.jobs_store import JobStore
from gleaner.app.services.logs import LogService
from gleaner.app.services.ml_models import MlModelService
from gleaner.app.services.package_signing import PackageSigner
from gleaner.app.services.packages import PackageService
from gleaner.app.services.registry_items import RegistryItems
from gleaner.app.store.object_store import open_objects, packages_address


def build_fleet(context: AppContext) -> None:
    """Everything that needs no stored data. Nothing runs yet."""
    database, events = context.database, context.events
    context.auth = AuthService(database, context.keys.tokens)
    context.api_keys = KeyService(database)
    context.fleet = fleet = FleetService(database, events)
    context.install = InstallLinks(context.keys.tokens)
    context.logs = LogService(database, events, fleet)
    folder = context.settings.data_dir / "packages"
    objects = open_objects(packages_address(context.settings.store, folder), os.environ)
    earlier = folder if objects.is_shared else None
    context.packages = packages = PackageService(database, events, fleet, context.keys, objects, earlier)
    context.registry_items = RegistryItems(database, packages)
    context.package_signer = PackageSigner(context.keys.tokens, packages)
    fleet.configs.versions = packages
    context.deploy = DeployService(fleet, packages)
    context.ml_models = MlModelService(packages, context.deploy)
    context.links = MachineLinks(fleet)


def build_training(context: AppContext) -> None:
    """After the dataset service is there."""
    runs = context.settings.data_dir / "runs"
    store, settings = JobStore(context.database), context.settings
    command = command_for(settings.ray_address, settings.ray_cpus)
    services = context.datasets, context.packages
    context.jobs = TrainingService(store, context.events, *services, runs, command, settings.training_memory_mb)
    if context.leases:
        context.jobs.holding = context.leases.holding


def start_fleet(context: AppContext) -> None:
    """After the tables were made."""
    context.auth.bootstrap(context.settings.owner_email)
    context.fleet.presence.watch(context.fleet.publish_status)
    context.packages.start()
    if context.settings.background:
        context.jobs.start()


def stop_fleet(context: AppContext) -> None:
    context.jobs.stop()
    context.fleet.presence.stop()
