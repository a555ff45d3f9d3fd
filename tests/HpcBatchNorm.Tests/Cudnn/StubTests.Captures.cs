using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Tests.Cudnn;

/// <content>What a driver does not allow while a step is recorded, the stand-in refuses by the same status, and the recording is worthless then.</content>
public sealed partial class StubTests
{
    [Theory]
    [InlineData("waiting on the host for an event of the recording", 907)]
    [InlineData("waiting for an event from before the recording", 905)]
    [InlineData("waiting for the device", 900)]
    public void Recording_DuringWhichSomethingIsNotAllowed_EndsInAnError(string what, int status)
    {
        using Backend backend = Create();
        CudaDevice device = ((CudnnBackend)backend).Device!;
        using CudaEvent before = device.CreateEvent(), during = device.CreateEvent();
        before.Record();
        device.BeginCapture();
        during.Record();
        NativeException error = Assert.Throws<NativeException>(what switch
        {
            "waiting for the device" => device.Synchronize,
            "waiting for an event from before the recording" => before.WaitOnDevice,
            _ => during.WaitOnHost,
        });
        Assert.Contains($"({status})", error.Message, StringComparison.Ordinal);
        Assert.Contains("(901)", Assert.Throws<NativeException>(device.EndCapture).Message, StringComparison.Ordinal);

        // The next recording knows nothing of it.
        device.BeginCapture();
        device.EndCapture().Dispose();
        StubDevice.Reset();
    }
}
