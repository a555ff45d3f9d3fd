using System.Collections.Concurrent;
using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training.Serving;

/// <summary>
/// Classifies images for a service: a checkpoint with its network, preprocessing, pixel normalization and class names, opened in one call and safe to use
/// from any thread. Images are decoded on the thread pool (or, by <see cref="Classify(ReadOnlySpan{byte})"/>, on the caller's thread) and computed by a bounded
/// pool of sessions that share one copy of the weights. The answer to an image is the same, bit for bit, whatever else is asked at the time.
/// </summary>
/// <example>
/// <code>
/// using var classifier = Classifier.Open("model.safetensors");
/// Classification answer = await classifier.ClassifyAsync(File.ReadAllBytes("photo.jpg"));
/// Console.WriteLine($"{answer.Best.Name}: {answer.Best.Probability:P1}");
/// </code>
/// </example>
public sealed class Classifier : IDisposable, IAsyncDisposable
{
    private readonly Backend _backend;
    private readonly List<ClassifierWorker> _workers = [];
    private readonly BlockingCollection<ClassificationRequest> _queue = [];
    private readonly SemaphoreSlim _room, _decoders;
    private readonly ConcurrentBag<ImagePreprocessor> _preprocessors = [];
    private readonly Lock _gate = new();
    private readonly ManualResetEventSlim _idle = new(true);
    private int _inFlight;
    private bool _closed, _freed;

    private Classifier(Backend backend, ForwardSession first, PreprocessingOptions preprocessing, IReadOnlyList<string> names, ClassifierOptions options)
    {
        (_backend, Preprocessing, ClassNames) = (backend, preprocessing, names);
        _room = new SemaphoreSlim(options.QueueCapacity);
        _decoders = new SemaphoreSlim(options.Decoders > 0 ? options.Decoders : Environment.ProcessorCount);
        WeightBytes = first.Prepared.WeightBytes;
        SessionBytes = first.Prepared.ArenaBytes + first.Prepared.StateBytes - first.Prepared.WeightBytes;
        List<ForwardSession> sessions = [first];
        try
        {
            while (sessions.Count < (backend.ConcurrentSessions ? options.Sessions : 1))
            {
                sessions.Add(first.Share());
            }
        }
        catch
        {
            sessions.ForEach(session => session.Dispose());
            throw;
        }

        Sessions = sessions.Count;
        MaxBatch = options.MaxBatch;
        foreach (ForwardSession session in sessions)
        {
            _workers.Add(new ClassifierWorker(session, _queue, options, names, Taken, _workers.Count));
        }

        _workers.ForEach(worker => worker.Start());
    }

    /// <summary>Names of the classes, in the order of the network's outputs.</summary>
    public IReadOnlyList<string> ClassNames { get; }

    /// <summary>What is made of an image before the network sees it.</summary>
    public PreprocessingOptions Preprocessing { get; }

    /// <summary>Sessions that compute at once.</summary>
    public int Sessions { get; }

    /// <summary>
    /// Images of one pass: <see cref="ClassifierOptions.MaxBatch"/>, or the largest smaller number with which the bits of an answer do not depend on the
    /// image's place in the batch. oneDNN's matrix products, for example, add in another order in the last rows of some batches.
    /// </summary>
    public int MaxBatch { get; }

    /// <summary>Bytes of the weights, of which there is one copy.</summary>
    public long WeightBytes { get; }

    /// <summary>Bytes of memory that every session has for itself: activations, scratch space, pixels, probabilities.</summary>
    public long SessionBytes { get; }

    /// <summary>The backend with its threads, for people.</summary>
    public string Description => $"{_backend.Name}: {_backend.Description}";

    /// <summary>Opens a checkpoint of a training run, with the moving averages of its parameters where the run kept them.</summary>
    /// <param name="checkpoint">The file.</param>
    /// <param name="options">How to work; the defaults when null.</param>
    /// <exception cref="UserErrorException">The file is missing, damaged or no checkpoint, the backend cannot be used here, or an option is out of its range.</exception>
    public static Classifier Open(string checkpoint, ClassifierOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        options ??= new ClassifierOptions();
        options.Validate();
        using var file = Checkpoint.Open(checkpoint);
        RunConfig config = EvaluationSetup.Configure(file, []);
        IReadOnlyList<string> names = file.Info.ClassNames;
        Network network = file.ReadNetwork();
        NetworkState state = file.ReadNetworkState(network.Infer(1, config.ImageSize, config.ImageSize), network.Name);
        var preprocessing = new PreprocessingOptions
        {
            Size = config.ImageSize,
            Channels = network.InputChannels,
            CropFraction = config.CropFraction,
            Binarize = config.Binarize,
            Interpolation = config.Interpolation,
        };
        return Open(network, state, EvaluationSetup.Session(config), preprocessing, names, options);
    }

    /// <summary>A classifier of a network and its parameters, without a checkpoint.</summary>
    /// <param name="network">The network.</param>
    /// <param name="state">Its parameters and statistics.</param>
    /// <param name="inference">Pixel normalization, precision and planner rules; batch and image size are taken from the other options.</param>
    /// <param name="preprocessing">What is made of an image.</param>
    /// <param name="classNames">One name per output of the network.</param>
    /// <param name="options">How to work; the defaults when null.</param>
    /// <exception cref="ArgumentException">There are not as many names as outputs.</exception>
    /// <exception cref="UserErrorException">The backend cannot be used here, or an option is out of its range.</exception>
    public static Classifier Open(
        Network network, NetworkState state, InferenceOptions inference, PreprocessingOptions preprocessing, IReadOnlyList<string> classNames, ClassifierOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(network);
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(inference);
        ArgumentNullException.ThrowIfNull(preprocessing);
        ArgumentNullException.ThrowIfNull(classNames);
        options ??= new ClassifierOptions();
        options.Validate();
        new ImagePreprocessor(preprocessing).Dispose(); // validates
        Backend backend = CreateBackend(options);
        try
        {
            inference = inference with
            {
                Batch = options.MaxBatch,
                Height = preprocessing.Size,
                Width = preprocessing.Size,
                Statistics = BatchNormStatistics.Running,
                Precision = options.Precision ?? inference.Precision,
            };
            ForwardSession session = CreateSession(backend, network, inference, state);
            options = options with { MaxBatch = session.Plan.Pixels.Shape.N };
            int outputs = session.Plan.Probabilities.Shape.C;
            if (outputs != classNames.Count)
            {
                session.Dispose();
                throw new ArgumentException(FormattableString.Invariant($"{network.Name} has {outputs} outputs; {classNames.Count} class names were given."), nameof(classNames));
            }

            return new Classifier(backend, session, preprocessing, classNames, options);
        }
        catch
        {
            backend.Dispose();
            throw;
        }
    }

    /// <summary>Classifies the content of an image file (JPEG, PNG, WebP or BMP).</summary>
    /// <param name="encoded">The file's bytes, which must stay unchanged until the task has ended.</param>
    /// <param name="cancellationToken">Gives up waiting; a pass that has begun is not interrupted, its answer is thrown away.</param>
    /// <returns>The answer. The task fails with <see cref="InvalidImageException"/> when the bytes are no image, and then only this request is concerned.</returns>
    /// <exception cref="ObjectDisposedException">The classifier has been disposed of.</exception>
    public Task<Classification> ClassifyAsync(ReadOnlyMemory<byte> encoded, CancellationToken cancellationToken = default) =>
        RunAsync((preprocessor, pixels) => preprocessor.Process(encoded.Span, pixels), cancellationToken);

    /// <summary>Classifies pixels that are decoded already.</summary>
    /// <param name="pixels">Width * height pixels, row after row, without gaps; they must stay unchanged until the task has ended.</param>
    /// <param name="width">Pixels per row.</param>
    /// <param name="height">Rows.</param>
    /// <param name="format">Bytes per pixel and their order.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <returns>
    /// The answer. The task fails with <see cref="InvalidImageException"/> when width or height are less than 1 or there are more than 100 million pixels, with
    /// <see cref="ArgumentException"/> when they are not as many bytes as width, height and format say; and then only this request is concerned.
    /// </returns>
    /// <exception cref="ObjectDisposedException">The classifier has been disposed of.</exception>
    public Task<Classification> ClassifyAsync(ReadOnlyMemory<byte> pixels, int width, int height, PixelFormat format, CancellationToken cancellationToken = default) =>
        RunAsync((preprocessor, result) => preprocessor.Process(pixels.Span, width, height, format, result), cancellationToken);

    /// <summary>Classifies the content of an image file, and waits for the answer. The image is decoded on this thread.</summary>
    /// <exception cref="InvalidImageException">The bytes are no image, or a damaged one; the message says what is wrong.</exception>
    /// <exception cref="ObjectDisposedException">The classifier has been disposed of.</exception>
    public Classification Classify(ReadOnlySpan<byte> encoded)
    {
        ClassificationRequest request = Begin(default);
        bool queued = false;
        try
        {
            _decoders.Wait();
            ImagePreprocessor? preprocessor = null;
            try
            {
                preprocessor = Rent();
                preprocessor.Process(encoded, request.Pixels);
            }
            finally
            {
                GiveBack(preprocessor);
            }

            _room.Wait();
            Enqueue(request);
            queued = true;
            Classification answer = request.Answer.GetAwaiter().GetResult();
            Instruments.Answered(request.Start, "ok");
            return answer;
        }
        catch (Exception error)
        {
            Instruments.Answered(request.Start, Outcome(error));
            throw;
        }
        finally
        {
            if (!queued)
            {
                request.Release();
            }

            End();
        }
    }

    /// <summary>Refuses further requests, waits for those in flight, and frees sessions, weights and backend. A second call does nothing.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _closed = true;
        }

        _idle.Wait();
        lock (_gate)
        {
            if (_freed)
            {
                return;
            }

            _freed = true;
        }

        _queue.CompleteAdding();
        _workers.ForEach(worker => worker.Finish());
        while (_preprocessors.TryTake(out ImagePreprocessor? preprocessor))
        {
            preprocessor.Dispose();
        }

        _backend.Dispose();
        _queue.Dispose();
        _room.Dispose();
        _decoders.Dispose();
    }

    /// <summary>As <see cref="Dispose"/>, without blocking the caller.</summary>
    public ValueTask DisposeAsync() => new(Task.Run(Dispose));

    private async Task<Classification> RunAsync(Action<ImagePreprocessor, Span<byte>> preprocess, CancellationToken cancellationToken)
    {
        ClassificationRequest request = Begin(cancellationToken);
        using Activity? activity = Instruments.Source.StartActivity("hpcbn.classify");
        bool queued = false;
        try
        {
            await _decoders.WaitAsync(cancellationToken).ConfigureAwait(false);
            await Task.Run(() => Preprocess(preprocess, request), CancellationToken.None).ConfigureAwait(false);
            await _room.WaitAsync(cancellationToken).ConfigureAwait(false);
            Enqueue(request);
            queued = true;
            Classification answer;
            await using (cancellationToken.UnsafeRegister(static state => ((ClassificationRequest)state!).Cancel(), request).ConfigureAwait(false))
            {
                answer = await request.Answer.ConfigureAwait(false);
            }

            Instruments.Answered(request.Start, "ok");
            return answer;
        }
        catch (Exception error)
        {
            activity?.SetStatus(ActivityStatusCode.Error, error.Message);
            Instruments.Answered(request.Start, Outcome(error));
            throw;
        }
        finally
        {
            if (!queued)
            {
                request.Release();
            }

            End();
        }
    }

    private void Preprocess(Action<ImagePreprocessor, Span<byte>> preprocess, ClassificationRequest request)
    {
        ImagePreprocessor? preprocessor = null;
        try
        {
            preprocessor = Rent();
            preprocess(preprocessor, request.Pixels);
        }
        finally
        {
            GiveBack(preprocessor);
        }
    }

    private static Backend CreateBackend(ClassifierOptions options)
    {
        Backend backend = Backend.Create(options.Backend, options.BackendOptions);
        if (options.Sessions == 1 || options.BackendOptions.Threads != 0 || !backend.ConcurrentSessions || backend.Threads <= 1)
        {
            return backend;
        }

        int threads = Math.Max(1, backend.Threads / options.Sessions);
        backend.Dispose();
        return Backend.Create(options.Backend, options.BackendOptions with { Threads = threads });
    }

    /// <summary>The session with the largest batch, no larger than asked for, in which every place gives the same bits.</summary>
    private static ForwardSession CreateSession(Backend backend, Network network, InferenceOptions options, NetworkState state)
    {
        while (true)
        {
            var session = new ForwardSession(backend, network, options, state);
            if (options.Batch == 1 || PlacesAgree(session))
            {
                return session;
            }

            session.Dispose();
            options = options with { Batch = options.Batch > 8 ? options.Batch * 3 / 4 : options.Batch - 1 };
        }
    }

    /// <summary>Shows the session the same noise at every place of the batch, three times.</summary>
    private static bool PlacesAgree(ForwardSession session)
    {
        int batch = session.Plan.Pixels.Shape.N, bytes = session.Plan.Pixels.Shape.ImageCount, classes = session.Plan.Probabilities.Shape.C;
        byte[] pixels = new byte[batch * bytes];
        float[] probabilities = new float[batch * classes];
        for (int trial = 0; trial < 3; trial++)
        {
            var random = new RandomSequence(1, 0, 0, (uint)trial);
            foreach (ref byte value in pixels.AsSpan(0, bytes))
            {
                value = (byte)random.NextBelow(256);
            }

            for (int i = 1; i < batch; i++)
            {
                pixels.AsSpan(0, bytes).CopyTo(pixels.AsSpan(i * bytes));
            }

            session.Forward(pixels, probabilities);
            for (int i = 1; i < batch; i++)
            {
                if (!probabilities.AsSpan(0, classes).SequenceEqual(probabilities.AsSpan(i * classes, classes)))
                {
                    return false;
                }
            }
        }

        return true;
    }

    private static string Outcome(Exception error) => error switch
    {
        InvalidImageException => "invalid_image",
        OperationCanceledException => "cancelled",
        _ => "error",
    };

    private ClassificationRequest Begin(CancellationToken cancellationToken)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_closed, this);
            if (_inFlight++ == 0)
            {
                _idle.Reset();
            }
        }

        return new ClassificationRequest(Preprocessing.ImageBytes, cancellationToken);
    }

    private void End()
    {
        lock (_gate)
        {
            if (--_inFlight == 0)
            {
                _idle.Set();
            }
        }
    }

    private ImagePreprocessor Rent() => _preprocessors.TryTake(out ImagePreprocessor? preprocessor) ? preprocessor : new ImagePreprocessor(Preprocessing);

    private void GiveBack(ImagePreprocessor? preprocessor)
    {
        if (preprocessor is not null)
        {
            _preprocessors.Add(preprocessor);
        }

        _decoders.Release();
    }

    private void Enqueue(ClassificationRequest request)
    {
        Instruments.Queued(1);
        _queue.Add(request);
    }

    private void Taken()
    {
        Instruments.Queued(-1);
        _room.Release();
    }
}
