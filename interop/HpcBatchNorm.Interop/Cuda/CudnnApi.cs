using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>cudnnConvolution{Fwd,BwdData,BwdFilter}AlgoPerf_t: one layout for the three, 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct CudnnAlgorithmPerformance
{
    public int Algorithm;
    public int Status;
    public float Milliseconds;
    public nuint WorkspaceBytes;
    public int Determinism;
    public int MathType;
    public int Reserved0;
    public int Reserved1;
    public int Reserved2;
}

/// <summary>
/// cuDNN 9's classic C API (libcudnn.so.9, which forwards to its sub-libraries). Every function returns a cudnnStatus_t except version and error texts.
/// alpha and beta point to host floats.
/// </summary>
internal sealed unsafe class CudnnApi
{
    public const int Success = 0;
    public const int Float = 0, Half = 2, BFloat16 = 9;
    public const int Nhwc = 1;
    public const int CrossCorrelation = 1;
    public const int MathDefault = 0, MathTensorOp = 1, MathFma = 3;
    public const int Deterministic = 1;
    public const int BatchNormPerActivation = 0, BatchNormSpatial = 1;
    public const int ActivationRelu = 1;
    public const int NotPropagateNan = 0;

    public readonly delegate* unmanaged<nuint> cudnnGetVersion;
    public readonly delegate* unmanaged<int, byte*> cudnnGetErrorString;
    public readonly delegate* unmanaged<byte*, nuint, void> cudnnGetLastErrorString;
    public readonly delegate* unmanaged<nint*, int> cudnnCreate;
    public readonly delegate* unmanaged<nint, int> cudnnDestroy;
    public readonly delegate* unmanaged<nint, nint, int> cudnnSetStream;
    public readonly delegate* unmanaged<nint*, int> cudnnCreateTensorDescriptor;
    public readonly delegate* unmanaged<nint, int> cudnnDestroyTensorDescriptor;
    public readonly delegate* unmanaged<nint, int, int, int, int, int, int, int, int, int, int> cudnnSetTensor4dDescriptorEx;
    public readonly delegate* unmanaged<nint*, int> cudnnCreateFilterDescriptor;
    public readonly delegate* unmanaged<nint, int> cudnnDestroyFilterDescriptor;
    public readonly delegate* unmanaged<nint, int, int, int, int, int, int, int> cudnnSetFilter4dDescriptor;
    public readonly delegate* unmanaged<nint*, int> cudnnCreateConvolutionDescriptor;
    public readonly delegate* unmanaged<nint, int> cudnnDestroyConvolutionDescriptor;
    public readonly delegate* unmanaged<nint, int, int, int, int, int, int, int, int, int> cudnnSetConvolution2dDescriptor;
    public readonly delegate* unmanaged<nint, int, int> cudnnSetConvolutionMathType;
    public readonly delegate* unmanaged<nint, int, int> cudnnSetConvolutionGroupCount;
    public readonly delegate* unmanaged<nint, nint, void*, nint, void*, nint, nint, void*, int, int*, CudnnAlgorithmPerformance*, void*, nuint, int> cudnnFindConvolutionForwardAlgorithmEx;
    public readonly delegate* unmanaged<nint, nint, nint, nint, nint, int, nuint*, int> cudnnGetConvolutionForwardWorkspaceSize;
    public readonly delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, int> cudnnConvolutionForward;
    public readonly delegate* unmanaged<nint*, int> cudnnCreateActivationDescriptor;
    public readonly delegate* unmanaged<nint, int> cudnnDestroyActivationDescriptor;
    public readonly delegate* unmanaged<nint, int, int, double, int> cudnnSetActivationDescriptor;
    public readonly delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, nint, void*, nint, nint, void*, int> cudnnConvolutionBiasActivationForward;
    public readonly delegate* unmanaged<nint, nint, void*, nint, void*, nint, nint, void*, int, int*, CudnnAlgorithmPerformance*, void*, nuint, int> cudnnFindConvolutionBackwardDataAlgorithmEx;
    public readonly delegate* unmanaged<nint, nint, nint, nint, nint, int, nuint*, int> cudnnGetConvolutionBackwardDataWorkspaceSize;
    public readonly delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, int> cudnnConvolutionBackwardData;
    public readonly delegate* unmanaged<nint, nint, void*, nint, void*, nint, nint, void*, int, int*, CudnnAlgorithmPerformance*, void*, nuint, int> cudnnFindConvolutionBackwardFilterAlgorithmEx;
    public readonly delegate* unmanaged<nint, nint, nint, nint, nint, int, nuint*, int> cudnnGetConvolutionBackwardFilterWorkspaceSize;
    public readonly delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, int> cudnnConvolutionBackwardFilter;
    public readonly delegate* unmanaged<nint, int, void*, void*, nint, void*, nint, void*, nint, void*, void*, double, void*, void*, double, void*, void*, int> cudnnBatchNormalizationForwardTraining;
    public readonly delegate* unmanaged<nint, int, void*, void*, void*, void*, nint, void*, nint, void*, nint, void*, nint, void*, void*, void*, double, void*, void*, int> cudnnBatchNormalizationBackward;

    /// <summary>Binds every function; the names of those the library lacks go to <paramref name="exports"/>.</summary>
    public CudnnApi(ExportTable exports)
    {
        cudnnGetVersion = (delegate* unmanaged<nuint>)exports.Get(nameof(cudnnGetVersion));
        cudnnGetErrorString = (delegate* unmanaged<int, byte*>)exports.Get(nameof(cudnnGetErrorString));
        cudnnGetLastErrorString = (delegate* unmanaged<byte*, nuint, void>)exports.Get(nameof(cudnnGetLastErrorString));
        cudnnCreate = (delegate* unmanaged<nint*, int>)exports.Get(nameof(cudnnCreate));
        cudnnDestroy = (delegate* unmanaged<nint, int>)exports.Get(nameof(cudnnDestroy));
        cudnnSetStream = (delegate* unmanaged<nint, nint, int>)exports.Get(nameof(cudnnSetStream));
        cudnnCreateTensorDescriptor = (delegate* unmanaged<nint*, int>)exports.Get(nameof(cudnnCreateTensorDescriptor));
        cudnnDestroyTensorDescriptor = (delegate* unmanaged<nint, int>)exports.Get(nameof(cudnnDestroyTensorDescriptor));
        cudnnSetTensor4dDescriptorEx = (delegate* unmanaged<nint, int, int, int, int, int, int, int, int, int, int>)exports.Get(nameof(cudnnSetTensor4dDescriptorEx));
        cudnnCreateFilterDescriptor = (delegate* unmanaged<nint*, int>)exports.Get(nameof(cudnnCreateFilterDescriptor));
        cudnnDestroyFilterDescriptor = (delegate* unmanaged<nint, int>)exports.Get(nameof(cudnnDestroyFilterDescriptor));
        cudnnSetFilter4dDescriptor = (delegate* unmanaged<nint, int, int, int, int, int, int, int>)exports.Get(nameof(cudnnSetFilter4dDescriptor));
        cudnnCreateConvolutionDescriptor = (delegate* unmanaged<nint*, int>)exports.Get(nameof(cudnnCreateConvolutionDescriptor));
        cudnnDestroyConvolutionDescriptor = (delegate* unmanaged<nint, int>)exports.Get(nameof(cudnnDestroyConvolutionDescriptor));
        cudnnSetConvolution2dDescriptor = (delegate* unmanaged<nint, int, int, int, int, int, int, int, int, int>)exports.Get(nameof(cudnnSetConvolution2dDescriptor));
        cudnnSetConvolutionMathType = (delegate* unmanaged<nint, int, int>)exports.Get(nameof(cudnnSetConvolutionMathType));
        cudnnSetConvolutionGroupCount = (delegate* unmanaged<nint, int, int>)exports.Get(nameof(cudnnSetConvolutionGroupCount));
        cudnnFindConvolutionForwardAlgorithmEx = (delegate* unmanaged<nint, nint, void*, nint, void*, nint, nint, void*, int, int*, CudnnAlgorithmPerformance*, void*, nuint, int>)exports.Get(nameof(cudnnFindConvolutionForwardAlgorithmEx));
        cudnnGetConvolutionForwardWorkspaceSize = (delegate* unmanaged<nint, nint, nint, nint, nint, int, nuint*, int>)exports.Get(nameof(cudnnGetConvolutionForwardWorkspaceSize));
        cudnnConvolutionForward = (delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, int>)exports.Get(nameof(cudnnConvolutionForward));
        cudnnCreateActivationDescriptor = (delegate* unmanaged<nint*, int>)exports.Get(nameof(cudnnCreateActivationDescriptor));
        cudnnDestroyActivationDescriptor = (delegate* unmanaged<nint, int>)exports.Get(nameof(cudnnDestroyActivationDescriptor));
        cudnnSetActivationDescriptor = (delegate* unmanaged<nint, int, int, double, int>)exports.Get(nameof(cudnnSetActivationDescriptor));
        cudnnConvolutionBiasActivationForward = (delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, nint, void*, nint, nint, void*, int>)exports.Get(nameof(cudnnConvolutionBiasActivationForward));
        cudnnFindConvolutionBackwardDataAlgorithmEx = (delegate* unmanaged<nint, nint, void*, nint, void*, nint, nint, void*, int, int*, CudnnAlgorithmPerformance*, void*, nuint, int>)exports.Get(nameof(cudnnFindConvolutionBackwardDataAlgorithmEx));
        cudnnGetConvolutionBackwardDataWorkspaceSize = (delegate* unmanaged<nint, nint, nint, nint, nint, int, nuint*, int>)exports.Get(nameof(cudnnGetConvolutionBackwardDataWorkspaceSize));
        cudnnConvolutionBackwardData = (delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, int>)exports.Get(nameof(cudnnConvolutionBackwardData));
        cudnnFindConvolutionBackwardFilterAlgorithmEx = (delegate* unmanaged<nint, nint, void*, nint, void*, nint, nint, void*, int, int*, CudnnAlgorithmPerformance*, void*, nuint, int>)exports.Get(nameof(cudnnFindConvolutionBackwardFilterAlgorithmEx));
        cudnnGetConvolutionBackwardFilterWorkspaceSize = (delegate* unmanaged<nint, nint, nint, nint, nint, int, nuint*, int>)exports.Get(nameof(cudnnGetConvolutionBackwardFilterWorkspaceSize));
        cudnnConvolutionBackwardFilter = (delegate* unmanaged<nint, void*, nint, void*, nint, void*, nint, int, void*, nuint, void*, nint, void*, int>)exports.Get(nameof(cudnnConvolutionBackwardFilter));
        cudnnBatchNormalizationForwardTraining = (delegate* unmanaged<nint, int, void*, void*, nint, void*, nint, void*, nint, void*, void*, double, void*, void*, double, void*, void*, int>)exports.Get(nameof(cudnnBatchNormalizationForwardTraining));
        cudnnBatchNormalizationBackward = (delegate* unmanaged<nint, int, void*, void*, void*, void*, nint, void*, nint, void*, nint, void*, nint, void*, void*, void*, double, void*, void*, int>)exports.Get(nameof(cudnnBatchNormalizationBackward));
    }
}
