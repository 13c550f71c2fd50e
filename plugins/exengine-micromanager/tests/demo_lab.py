"""Config files for real device adapters, and sequences to run on them."""

import useq

SEQUENCE_TESTER = """\
Property,Core,Initialize,0
Device,THub,SequenceTester,THub
Device,TCamera,SequenceTester,TCamera
Property,TCamera,ImageMode,MachineReadable
Property,TCamera,ImageWidth,64
Property,TCamera,ImageHeight,48
Parent,TCamera,THub
Property,Core,Initialize,1
Property,Core,Camera,TCamera
"""

CAMERA_ONLY = """\
Device,Camera,DemoCamera,DCam
Property,Core,Initialize,1
Property,Core,Camera,Camera
ConfigGroup,Filter,Good,Camera,Gain,1
ConfigGroup,Filter,Bad,Camera,Binning,3
ConfigGroup,Filter,Binned,Camera,Binning,2
Property,Core,ChannelGroup,Filter
"""

TWO_CAMERAS = """\
Property,Core,Initialize,0
Device,Left,DemoCamera,DCam
Device,Right,DemoCamera,DCam
Device,Both,Utilities,Multi Camera
Property,Core,Initialize,1
Property,Both,Physical Camera 1,Left
Property,Both,Physical Camera 2,Right
Property,Core,Camera,Both
"""


def timelapse(loops: int, interval: float = 0, **fields) -> useq.MDASequence:
    return useq.MDASequence(time_plan={"interval": interval, "loops": loops}, **fields)


def snaps(number: int, **fields) -> useq.MDASequence:
    """A sequence that the demo microscope cannot run as a burst: the stage moves between frames."""
    places = [{"x": 10.0 * n, "y": 0.0} for n in range(number)]
    return useq.MDASequence(stage_positions=places, **fields)


SWITCHED_CAMERAS = """\
Property,Core,Initialize,0
Device,Left,DemoCamera,DCam
Device,Right,DemoCamera,DCam
Device,Both,Utilities,Multi Camera
Device,Shut,DemoCamera,DShutter
Device,Shut2,DemoCamera,DShutter
Device,Z,DemoCamera,DStage
Device,Piezo,DemoCamera,DStage
Device,XY,DemoCamera,DXYStage
Property,Core,Initialize,1
Property,Both,Physical Camera 1,Left
Property,Both,Physical Camera 2,Right
Property,Core,Camera,Left
Property,Core,Shutter,Shut
Property,Core,Focus,Z
Property,Core,XYStage,XY
Property,Core,AutoShutter,1
Property,Left,PixelType,16bit
Property,Right,PixelType,8bit
ConfigGroup,Channel,OnLeft,Core,Camera,Left
ConfigGroup,Channel,OnRight,Core,Camera,Right
ConfigGroup,Channel,OnBoth,Core,Camera,Both
ConfigGroup,Channel,Second,Core,Shutter,Shut2
ConfigGroup,Channel,Bright,Left,Gain,5
ConfigGroup,Channel,Plain,Left,Offset,1
ConfigGroup,Channel,Slow,Left,Exposure,30
ConfigPixelSize,Res,Left,Binning,1
PixelSize_um,Res,1.0
"""
