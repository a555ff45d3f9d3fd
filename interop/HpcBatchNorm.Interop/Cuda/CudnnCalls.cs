namespace HpcBatchNorm.Interop.Cuda;

/// <summary>
/// One convolution computation of cuDNN on three tensors: <c>a</c> and <c>b</c> are read, <c>c</c> is written, in the order of cuDNN's own parameters
/// (forward: src, weights, dst; backward data: weights, diffDst, diffSrc; backward filter: src, diffDst, diffWeights).
/// </summary>
internal sealed unsafe class CudnnConvolution : IDisposable
{
    private const int MostAlgorithms = 16;

    private readonly CudnnHandle _cudnn;
    private readonly CudnnPass _pass;
    private readonly CudnnDescriptor _a, _b, _convolution, _c;
    private readonly string _operation;
    private CudnnDescriptor? _bias, _relu;

    /// <summary>Takes over the descriptors.</summary>
    public CudnnConvolution(CudnnHandle cudnn, CudnnPass pass, CudnnDescriptor a, CudnnDescriptor b, CudnnDescriptor convolution, CudnnDescriptor c, string operation)
    {
        (_cudnn, _pass, _a, _b, _convolution, _c, _operation) = (cudnn, pass, a, b, convolution, c, operation);
    }

    /// <summary>
    /// Times all algorithms on the given memory, whose contents are lost, and returns those that work, fastest first; none where cuDNN refuses the
    /// problem. Not while a step is recorded.
    /// </summary>
    public IReadOnlyList<CudnnAlgorithm> Search(nint a, nint b, nint c, nint workspace, long workspaceBytes)
    {
        _cudnn.Device.Enter();
        CudnnApi api = _cudnn.Api;
        var find = _pass switch
        {
            CudnnPass.Forward => api.cudnnFindConvolutionForwardAlgorithmEx,
            CudnnPass.BackwardData => api.cudnnFindConvolutionBackwardDataAlgorithmEx,
            _ => api.cudnnFindConvolutionBackwardFilterAlgorithmEx,
        };
        CudnnAlgorithmPerformance* results = stackalloc CudnnAlgorithmPerformance[MostAlgorithms];
        int count = 0;
        int status = find(_cudnn.Handle, _a.Handle, (void*)a, _b.Handle, (void*)b, _convolution.Handle, _c.Handle, (void*)c, MostAlgorithms, &count, results,
            (void*)workspace, (nuint)workspaceBytes);
        if (IsRefusal(status))
        {
            return [];
        }

        _cudnn.Check(status, _operation);
        List<CudnnAlgorithm> found = [];
        for (int i = 0; i < count; i++)
        {
            if (results[i].Status == CudnnApi.Success)
            {
                found.Add(new CudnnAlgorithm(results[i].Algorithm, results[i].MathType, (long)results[i].WorkspaceBytes, results[i].Milliseconds,
                    results[i].Determinism == CudnnApi.Deterministic));
            }
        }

        return found;
    }

    /// <summary>Scratch memory an algorithm needs, or null where it does not fit the problem.</summary>
    public long? WorkspaceBytes(CudnnAlgorithm algorithm)
    {
        _cudnn.Device.Enter();
        CudnnApi api = _cudnn.Api;
        int status = api.cudnnSetConvolutionMathType(_convolution.Handle, algorithm.MathType);
        if (IsRefusal(status))
        {
            return null;
        }

        _cudnn.Check(status, _operation);
        var get = _pass switch
        {
            CudnnPass.Forward => api.cudnnGetConvolutionForwardWorkspaceSize,
            CudnnPass.BackwardData => api.cudnnGetConvolutionBackwardDataWorkspaceSize,
            _ => api.cudnnGetConvolutionBackwardFilterWorkspaceSize,
        };
        nuint bytes = 0;
        status = get(_cudnn.Handle, _a.Handle, _b.Handle, _convolution.Handle, _c.Handle, algorithm.Algorithm, &bytes);
        if (IsRefusal(status))
        {
            return null;
        }

        _cudnn.Check(status, _operation);
        return (long)bytes;
    }

    /// <summary>Sets the algorithm's kind of arithmetic on the convolution; once, before it is executed.</summary>
    public void Use(CudnnAlgorithm algorithm) => _cudnn.Check(_cudnn.Api.cudnnSetConvolutionMathType(_convolution.Handle, algorithm.MathType), _operation);

    /// <summary>Enqueues c = the computation on a and b, plus what c holds when <paramref name="add"/>.</summary>
    public void Execute(nint a, nint b, nint c, int algorithm, nint workspace, long workspaceBytes, bool add = false)
    {
        float one = 1, kept = add ? 1 : 0;
        CudnnApi api = _cudnn.Api;
        var execute = _pass switch
        {
            CudnnPass.Forward => api.cudnnConvolutionForward,
            CudnnPass.BackwardData => api.cudnnConvolutionBackwardData,
            _ => api.cudnnConvolutionBackwardFilter,
        };
        int status = execute(_cudnn.Handle, &one, _a.Handle, (void*)a, _b.Handle, (void*)b, _convolution.Handle, algorithm, (void*)workspace,
            (nuint)workspaceBytes, &kept, _c.Handle, (void*)c);
        _cudnn.Check(status, _operation);
    }

    /// <summary>
    /// Takes over a bias and ReLU, which <see cref="TryExecuteWithRelu"/> computes with the forward pass: a number per output channel, of the tensors' type.
    /// </summary>
    public void AddRelu(CudnnDescriptor bias, CudnnDescriptor relu) => (_bias, _relu) = (bias, relu);

    /// <summary>
    /// Enqueues c = ReLU(the convolution of a and b, plus bias, plus <paramref name="residual"/>, which may be c, when <paramref name="add"/>). False, and nothing
    /// is done, where cuDNN refuses it. A NaN becomes 0.
    /// </summary>
    public bool TryExecuteWithRelu(nint a, nint b, nint c, nint bias, nint residual, int algorithm, nint workspace, long workspaceBytes, bool add)
    {
        float one = 1, ofResidual = add ? 1f : 0f;
        int status = _cudnn.Api.cudnnConvolutionBiasActivationForward(
            _cudnn.Handle, &one, _a.Handle, (void*)a, _b.Handle, (void*)b, _convolution.Handle, algorithm, (void*)workspace, (nuint)workspaceBytes,
            &ofResidual, _c.Handle, (void*)residual, _bias!.Handle, (void*)bias, _relu!.Handle, _c.Handle, (void*)c);
        if (IsRefusal(status))
        {
            return false;
        }

        _cudnn.Check(status, _operation);
        return true;
    }

    public void Dispose()
    {
        _a.Dispose();
        _b.Dispose();
        _c.Dispose();
        _convolution.Dispose();
        _bias?.Dispose();
        _relu?.Dispose();
    }

    /// <summary>
    /// True when cuDNN will not do it this way but nothing is broken: it does not support it (3xxx), or calls a parameter bad (2xxx), as some versions do of
    /// an algorithm that does not fit the problem's types or strides.
    /// </summary>
    private static bool IsRefusal(int status) => status is >= 2000 and < 4000;
}

/// <summary>cuDNN's own batch normalization, for comparison with ours.</summary>
internal sealed unsafe class CudnnBatchNorm : IDisposable
{
    private readonly CudnnHandle _cudnn;
    private readonly CudnnDescriptor _data, _parameters;
    private readonly int _mode;
    private readonly double _epsilon;
    private readonly string _operation;

    /// <summary>Takes over the descriptors of src (and dst, and their gradients) and of the parameters.</summary>
    public CudnnBatchNorm(CudnnHandle cudnn, CudnnDescriptor data, CudnnDescriptor parameters, bool perActivation, double epsilon, string operation)
    {
        (_cudnn, _data, _parameters, _epsilon, _operation) = (cudnn, data, parameters, epsilon, operation);
        _mode = perActivation ? CudnnApi.BatchNormPerActivation : CudnnApi.BatchNormSpatial;
    }

    /// <summary>Normalises with batch statistics; writes the mean and 1/sqrt(variance + epsilon), and updates running statistics unless their addresses are 0.</summary>
    public void ForwardTraining(
        nint src, nint dst, nint scale, nint shift, double averagingFactor, nint runningMean, nint runningVariance, nint mean, nint inverseDeviation)
    {
        float one = 1, zero = 0;
        _cudnn.Check(_cudnn.Api.cudnnBatchNormalizationForwardTraining(
            _cudnn.Handle, _mode, &one, &zero, _data.Handle, (void*)src, _data.Handle, (void*)dst, _parameters.Handle, (void*)scale, (void*)shift,
            averagingFactor, (void*)runningMean, (void*)runningVariance, _epsilon, (void*)mean, (void*)inverseDeviation), _operation);
    }

    /// <summary>Gradients through batch statistics.</summary>
    public void Backward(nint src, nint diffDst, nint diffSrc, nint scale, nint diffScale, nint diffShift, nint mean, nint inverseDeviation)
    {
        float one = 1, zero = 0;
        _cudnn.Check(_cudnn.Api.cudnnBatchNormalizationBackward(
            _cudnn.Handle, _mode, &one, &zero, &one, &zero, _data.Handle, (void*)src, _data.Handle, (void*)diffDst, _data.Handle, (void*)diffSrc,
            _parameters.Handle, (void*)scale, (void*)diffScale, (void*)diffShift, _epsilon, (void*)mean, (void*)inverseDeviation), _operation);
    }

    public void Dispose()
    {
        _data.Dispose();
        _parameters.Dispose();
    }
}
