"""The typed values that operations answer with. An optional field that has no value is left out of the JSON.

All of them are imported from here; each is written in the module of what it is about.
"""

from modelwire.values.daemon import Change as Change
from modelwire.values.daemon import Configured as Configured
from modelwire.values.daemon import Description as Description
from modelwire.values.daemon import Done as Done
from modelwire.values.daemon import Drained as Drained
from modelwire.values.daemon import EventsEnd as EventsEnd
from modelwire.values.daemon import HostView as HostView
from modelwire.values.daemon import LogView as LogView
from modelwire.values.daemon import PeerView as PeerView
from modelwire.values.daemon import QueueView as QueueView
from modelwire.values.daemon import RecoveryView as RecoveryView
from modelwire.values.daemon import Status as Status
from modelwire.values.daemon import SweepView as SweepView
from modelwire.values.daemon import TransferView as TransferView
from modelwire.values.daemon import Welcome as Welcome
from modelwire.values.jobs import Counters as Counters
from modelwire.values.jobs import Failure as Failure
from modelwire.values.jobs import JobList as JobList
from modelwire.values.jobs import JobView as JobView
from modelwire.values.models import Added as Added
from modelwire.values.models import Copied as Copied
from modelwire.values.models import Holder as Holder
from modelwire.values.models import Leased as Leased
from modelwire.values.models import ModelFile as ModelFile
from modelwire.values.models import ModelList as ModelList
from modelwire.values.models import ModelView as ModelView
from modelwire.values.models import Moved as Moved
from modelwire.values.models import Offered as Offered
from modelwire.values.models import Pinned as Pinned
from modelwire.values.models import PlanStep as PlanStep
from modelwire.values.models import Provenance as Provenance
from modelwire.values.models import Provenanced as Provenanced
from modelwire.values.models import Pulled as Pulled
from modelwire.values.models import Released as Released
from modelwire.values.models import Removed as Removed
from modelwire.values.models import Resolved as Resolved
from modelwire.values.models import Verification as Verification
from modelwire.values.models import Verified as Verified
from modelwire.values.store import DiskUsage as DiskUsage
from modelwire.values.store import ModelUsage as ModelUsage
from modelwire.values.store import Quarantined as Quarantined
from modelwire.values.store import QuarantineList as QuarantineList
from modelwire.values.store import Swept as Swept
from modelwire.values.store import Usage as Usage
from modelwire.values.store import Victim as Victim
from modelwire.values.value import Value as Value
