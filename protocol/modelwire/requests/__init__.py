"""The requests: one frozen struct for each operation.

`id` ties the replies to the request. It may be left empty when a request is made: the sending connection numbers it.
All of them are imported from here; each is written in the module of what it is about.
"""

from modelwire.requests.daemon import Cancel as Cancel
from modelwire.requests.daemon import DaemonConfigure as DaemonConfigure
from modelwire.requests.daemon import DaemonDescribe as DaemonDescribe
from modelwire.requests.daemon import DaemonDrain as DaemonDrain
from modelwire.requests.daemon import DaemonStatus as DaemonStatus
from modelwire.requests.daemon import EventsSubscribe as EventsSubscribe
from modelwire.requests.daemon import FilesOffer as FilesOffer
from modelwire.requests.daemon import Hello as Hello
from modelwire.requests.jobs import JOBS_LISTED as JOBS_LISTED
from modelwire.requests.jobs import JobAttach as JobAttach
from modelwire.requests.jobs import JobCancel as JobCancel
from modelwire.requests.jobs import JobConfigure as JobConfigure
from modelwire.requests.jobs import JobList as JobList
from modelwire.requests.jobs import JobPause as JobPause
from modelwire.requests.jobs import JobPrioritize as JobPrioritize
from modelwire.requests.jobs import JobResume as JobResume
from modelwire.requests.jobs import JobShow as JobShow
from modelwire.requests.models import UPDATES_LISTED as UPDATES_LISTED
from modelwire.requests.models import LeaseAcquire as LeaseAcquire
from modelwire.requests.models import LeaseRelease as LeaseRelease
from modelwire.requests.models import ModelCopy as ModelCopy
from modelwire.requests.models import ModelFit as ModelFit
from modelwire.requests.models import ModelList as ModelList
from modelwire.requests.models import ModelMove as ModelMove
from modelwire.requests.models import ModelPin as ModelPin
from modelwire.requests.models import ModelRemove as ModelRemove
from modelwire.requests.models import ModelRepair as ModelRepair
from modelwire.requests.models import ModelResolve as ModelResolve
from modelwire.requests.models import ModelShow as ModelShow
from modelwire.requests.models import ModelUnpin as ModelUnpin
from modelwire.requests.models import ModelUpdates as ModelUpdates
from modelwire.requests.models import ModelVerify as ModelVerify
from modelwire.requests.models import ModelVerifySignature as ModelVerifySignature
from modelwire.requests.new_models import Fetch as Fetch
from modelwire.requests.new_models import ModelAdd as ModelAdd
from modelwire.requests.new_models import ModelProvision as ModelProvision
from modelwire.requests.new_models import ModelPull as ModelPull
from modelwire.requests.new_models import ModelRegister as ModelRegister
from modelwire.requests.new_models import ModelUpdate as ModelUpdate
from modelwire.requests.new_models import RefuseLoad as RefuseLoad
from modelwire.requests.request import Request as Request
from modelwire.requests.request import Write as Write
from modelwire.requests.store import StoreMove as StoreMove
from modelwire.requests.store import StoreQuarantine as StoreQuarantine
from modelwire.requests.store import StoreScrub as StoreScrub
from modelwire.requests.store import StoreSweep as StoreSweep
from modelwire.requests.store import StoreUsage as StoreUsage
